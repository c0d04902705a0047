"""Is what was recorded on disk, whole, when the process dies?"""

import logging
import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.quant import QuantSpec, quantize
from oscillab.recording import npz, recorder, snapshot
from oscillab.recording.recorder import record
from oscillab.recording.recording import Recording

WINDOW = 20


def run(steps, *, path=None, at_step=None, granularity="per_tensor"):
    """The recording of a small training of so many steps in windows of 20 ticks."""
    recorder.WINDOW_TICKS, snapshot.WRITE_SHARE = WINDOW, 1e9
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 2, 1))
    spec = QuantSpec(bits=3, weight_granularity=granularity)
    quantize(net, spec, [torch.rand(2, 3, 12, 12)]).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    with record(net, optimizer, path=path, ranges_every=3) as running:
        for step in range(steps):
            optimizer.zero_grad()
            (net(torch.rand(2, 3, 12, 12)) - torch.rand(1)).square().mean().backward()
            optimizer.step()
            if at_step:
                at_step(step + 1)
    return running.recording()


@pytest.fixture(autouse=True)
def short_windows(monkeypatch):
    """Windows of 20 ticks, each of them written, for the time of a test."""
    monkeypatch.setattr(recorder, "WINDOW_TICKS", WINDOW)
    monkeypatch.setattr(snapshot, "WRITE_SHARE", 1e9)


def assert_same(one, other):
    """Fail unless two recordings are equal, value for value."""
    assert one.meta == other.meta and one.arrays.keys() == other.arrays.keys()
    for name in one.arrays:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def opened(path):
    """The recording of a process that died, which opens with a warning."""
    with pytest.warns(UserWarning, match="run.npz: not finished, it goes up to step "):
        return Recording.open(path)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_killed_in_the_middle(tmp_path, root):
    """Oracle: the recording of a run of 80 steps, value for value; the killed one died at step 93, after four windows."""
    path = tmp_path / "run.npz"
    code = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[2]); import test_writer\n"
        "die = lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == 93 else None\n"
        "test_writer.run(200, path=sys.argv[1], at_step=die, granularity='per_channel')"
    )
    command = [sys.executable, "-c", code, str(path), os.path.dirname(__file__)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert_same(opened(path), run(80, granularity="per_channel"))


def test_every_window_is_on_disk(tmp_path):
    """Oracle: the recordings of runs that end at each window."""
    path, seen = tmp_path / "run.npz", {}

    def look(step):
        if step % WINDOW == 5 and step > WINDOW:
            seen[step - 5] = opened(path)

    run(6 * WINDOW, path=path, at_step=look)
    assert list(seen) == [20, 40, 60, 80, 100]
    for steps, recording in seen.items():
        assert_same(recording, run(steps))


def test_a_finished_file_is_a_saved_recording(tmp_path):
    """Oracle: the bytes that `save` writes; nothing warns."""
    recording = run(2 * WINDOW + 7, path=tmp_path / "run.npz")
    assert (tmp_path / "run.npz").read_bytes() == recording.save(tmp_path / "saved.npz").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(Recording.open(tmp_path / "run.npz"), recording)


def test_an_error_in_the_loop_leaves_all_steps(tmp_path):
    """Oracle: an exception is no kill: the steps since the last window are there too."""

    def fail(step):
        if step == 33:
            raise KeyError("in the loop")

    with pytest.raises(KeyError):
        run(200, path=tmp_path / "run.npz", at_step=fail)
    assert Recording.open(tmp_path / "run.npz").steps[-1] == 33


def test_writing_takes_a_twentieth_of_the_time(fakes, tmp_path, monkeypatch):
    """Oracle: by hand, on a clock of a second a step: a write of 3.5 s has to be 70 s ago, so every fourth window is."""
    clock, written = [0.0], []

    def save(recording, path):
        written.append(recording.meta["step_count"])
        clock[0] += 3.5

    monkeypatch.setattr(snapshot, "WRITE_SHARE", 0.05)
    monkeypatch.setattr(snapshot.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(Recording, "save", save)
    with record(fakes.Net([[0.0]]), average := fakes.Average(), path=tmp_path / "run.npz"):
        for _ in range(10 * WINDOW):
            clock[0] += 1
            average.step()
    assert written == [20, 100, 180, 200]


def test_a_full_disk_does_not_stop_training(tmp_path, monkeypatch, caplog):
    """Oracle: a line in the log names the step; the next window writes, and the end is whole."""
    path, npy = tmp_path / "run.npz", npz.npy

    def full(*_):
        raise OSError(28, "No space left on device")

    def disk(step):
        monkeypatch.setattr(npz, "npy", full if 25 < step <= 2 * WINDOW + 5 else npy)

    with caplog.at_level(logging.WARNING):
        recording = run(3 * WINDOW + 2, path=path, at_step=disk)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "the recording could not be written at step 40"
    ]
    assert_same(Recording.open(path), recording)


def test_a_resumed_recording_is_written_from_its_start(tmp_path):
    """Oracle: the file of a resumed run holds the ticks before the resume as well."""
    net, path = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1)), tmp_path / "run.npz"
    quantize(net, QuantSpec(bits=3), [torch.rand(2, 1, 4, 4)])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    with record(net, optimizer) as before:
        for _ in range(WINDOW + 3):
            optimizer.step()
    state = before.state_dict()
    with record(net, optimizer, path=path) as after:
        after.load_state_dict(state)
        for _ in range(WINDOW):
            optimizer.step()
        assert opened(path).steps.tolist() == list(range(2 * WINDOW + 1))
