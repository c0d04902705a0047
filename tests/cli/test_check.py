"""The command `check`, what is said without a command, and which code a result came from."""

import json
import shutil
import subprocess
import sys

import pytest

from oscillab import __version__, provenance
from oscillab.__main__ import COMMANDS, main
from oscillab.cli.train import QuantOptions
from oscillab.data.dataset import CocoFolder
from oscillab.data.scenes import Scenes
from oscillab.quant import QuantSpec


def test_a_folder_is_described_and_its_faults_are_listed(tmp_path, capsys):
    """Oracle: the scenes written, status 0; an image overwritten by another's, one by text, a box of text, status 1."""
    root = tmp_path / "data"
    path = CocoFolder.write(Scenes(3, split="val", size=64), root, "val2017")
    assert main(["check", str(root), "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())["val2017"]
    assert found["images"] == 3 and found["sizes"] == "64x64 to 64x64 pixels" and found["same images"] == "none"
    assert "disc, ring, open ring" in capsys.readouterr().out
    images = root / "images" / "val2017"
    (images / "000001.png").write_bytes((images / "000000.png").read_bytes())
    (images / "000002.png").write_text("no image")
    assert main(["check", str(root)]) == 1
    shown = capsys.readouterr().out
    assert "000001.png = 000000.png" in shown and "error: " in shown and "000002.png cannot be read" in shown
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = "box"
    path.write_text(json.dumps(content))
    assert main(["check", str(root)]) == 1
    assert "error: bbox of entry 0 of 'annotations'" in capsys.readouterr().out


def test_without_a_command(monkeypatch, capsys, root):
    """Oracle: a line for each command, the version, the nearest; a fresh interpreter's modules; QuantSpec's values."""
    for words in ([], ["--help"]):
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert all(f"  {word} " in shown for word in COMMANDS)
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"oscillab {__version__}\n"
    assert main(["evalute"]) == 2 and "no command 'evalute'; did you mean 'evaluate'?" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["pretrain"]) == 2
    assert "torchrun shares qat, correct, evaluate among processes; start pretrain without" in capsys.readouterr().err
    code = (
        "import sys; from oscillab.__main__ import COMMANDS, main\n"
        "for word in COMMANDS:\n    print('===', word)\n    try: main([word, '--help'])\n    except SystemExit: pass\n"
        "print('=== loaded', *({'torch', 'numpy', 'pandas', 'cv2', 'matplotlib'} & {*sys.modules}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    *pages, loaded = shown.split("=== ")[1:]
    helps = {page.split()[0]: page for page in pages}
    assert loaded.split() == ["loaded"] and list(helps) == list(COMMANDS) and "dummy" not in shown
    for values in ("{symmetric,unsigned,affine}", "{mse,lsq}", "{per_tensor,per_channel}", "{unrounded,rounded}"):
        assert values in helps["qat"]
    assert QuantSpec(**vars(QuantOptions())) == QuantSpec()
    unused = {"models": "seed device", "export": "seed device threads", "pretrain": "step-size-rate timeout"}
    unused |= {"correct": "weight-decay step-size-rate sync-bn", "predict": "seed timeout"}
    for command, options in unused.items():
        assert not [option for option in options.split() if f"--{option}" in helps[command]]


AUTHOR = ("-c", "user.name=A", "-c", "user.email=a@example.org")


@pytest.mark.skipif(shutil.which("git") is None, reason="this machine has no git")
def test_a_result_says_which_code_it_came_from(tmp_path, monkeypatch):
    """Oracle: git's own hash; + where code is changed or new, not for results; None without a commit or without git."""

    def git(*words):
        return subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    code, more = tmp_path / "oscillab" / "code.py", tmp_path / "oscillab" / "more.py"
    code.parent.mkdir()
    code.write_text("1\n")
    git("init", "--quiet"), git("add", "."), git(*AUTHOR, "commit", "--quiet", "--message", "one")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    plain = git("rev-parse", "HEAD")[:12]
    (tmp_path / "table.csv").write_text("map\n")
    assert provenance.commit() == plain
    more.write_text("2\n")
    assert provenance.commit() == f"{plain}+"
    more.unlink()
    code.write_text("3\n")
    assert provenance.commit() == f"{plain}+"
    shutil.rmtree(tmp_path / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() is None
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None
