"""Does a machine without a compiler, or with several processes, get the same numbers?"""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from oscillab.quant import kernel as build
from oscillab.quant.kernel import kernel_off, loaded
from oscillab.quant.lsq import lsq

have_compiler = pytest.mark.skipif(build.compiler() is None, reason="this machine has no C compiler")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache folder, and no memory of a kernel loaded before."""
    monkeypatch.setenv("OSCILLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OSCILLAB_KERNEL", raising=False)
    loaded.cache_clear()
    yield tmp_path / "cache"
    loaded.cache_clear()


def use_compiler(monkeypatch, path, script):
    """Make a shell script the C compiler."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))


def numbers():
    """The values and gradients of a small example."""
    x = torch.linspace(-2, 2, 41).requires_grad_()
    step = torch.tensor(0.25, requires_grad=True)
    y = lsq(x, step, -4, 3)
    return [y.detach(), *torch.autograd.grad(y.sum(), (x, step))]


def test_without_a_compiler(fresh, monkeypatch, tmp_path, caplog):
    """Oracle: torch's numbers, no file, and one line in the log however often it is asked."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.delenv("CC", raising=False)
    with caplog.at_level(logging.INFO, "oscillab.quant.kernel"):
        mine = [numbers() for _ in range(3)][-1]
    assert caplog.messages == ["no C compiler (cc, gcc, clang): quantizers run on torch's own operations"]
    assert loaded() is None and not fresh.exists()
    with kernel_off():
        for one, other in zip(mine, numbers(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 3", "returned non-zero exit status 3"),
        ("echo it is broken >&2; exit 1", "it is broken"),
        ('while [ $# -gt 0 ]; do [ "$1" = -o ] && echo rubbish > "$2"; shift; done', "does not load"),
    ],
)
def test_a_compiler_that_fails(fresh, monkeypatch, tmp_path, caplog, script, said):
    """Oracle: torch's numbers, and what it said in one line of the log."""
    use_compiler(monkeypatch, tmp_path / "broken", script)
    with caplog.at_level(logging.INFO, "oscillab.quant.kernel"):
        numbers(), numbers()
    assert len(caplog.messages) == 1 and said in caplog.messages[0] and "\n" not in caplog.messages[0]
    assert loaded() is None


def test_it_can_be_left_out(fresh, monkeypatch):
    """Oracle: the environment variable's words; nothing is compiled."""
    for word in ("0", "off", "False"):
        monkeypatch.setenv("OSCILLAB_KERNEL", word)
        loaded.cache_clear()
        assert loaded() is None
    assert not fresh.exists()


@have_compiler
def test_processes_that_start_at_once(fresh):
    """Oracle: an invariant: all three get the one file, which stays the only thing in the folder."""
    code = f"import runpy; p = runpy.run_path({build.__file__!r})['shared_object'](); print(p)"
    code += "; import ctypes; ctypes.CDLL(str(p)).float32_forward"
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {run.communicate(timeout=120)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0] * 3
    assert {Path(line) for line in said} == set(fresh.iterdir())


@have_compiler
def test_it_is_built_once_and_again_for_another_processor(fresh, monkeypatch):
    """Oracle: the time stamp of the file, and a second file beside it for other words about the processor."""
    first = build.shared_object()
    made = first.stat().st_mtime_ns
    assert build.shared_object() == first and first.stat().st_mtime_ns == made
    monkeypatch.setattr(build, "processor", lambda: "another")
    assert build.shared_object() != first and len(list(fresh.iterdir())) == 2


@have_compiler
def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    """Oracle: a file where the folder should be: a private folder takes its place."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OSCILLAB_CACHE", str(tmp_path / "file"))
    path = build.shared_object()
    assert path.is_file() and tmp_path not in path.parents
    assert path.parent.stat().st_mode & 0o077 == 0  # nobody else can put a file there


@have_compiler
def test_an_old_processor_is_served(fresh, monkeypatch):
    """Oracle: a compiler that knows no processor by name: the plain choice is taken, and the numbers are torch's."""
    script = f'case "$*" in *native*|*-fopenmp\\ *) exit 1;; esac\nexec {build.compiler()[0]} "$@"'
    use_compiler(monkeypatch, fresh.parent / "old", script)
    mine = numbers()
    assert loaded() is not None
    with kernel_off():
        theirs = numbers()
    assert torch.equal(mine[0], theirs[0]) and torch.equal(mine[1], theirs[1])
    torch.testing.assert_close(mine[2], theirs[2])
