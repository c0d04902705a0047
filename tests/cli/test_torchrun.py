"""The command line under torchrun: what it writes, and how it ends when a process dies or falls silent."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import oscillab

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available() or sys.platform != "linux", reason="needs gloo on Linux"),
]
SMALL = ["--size", "64", "--count", "32", "--batch-size", "8", "--bits", "4", "--checkpoint-every", "2"]
SMALL += ["--no-progress", "--no-measure"]
LONG = 600  # seconds until a test gives up on a busy machine


def started(command, root, **more):
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"} | more
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", *command], cwd=root, env=env, **pipes)


def torchrun(root, *arguments):
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "oscillab"]
    return started([*launcher, *arguments], root)


def wait_for(path, process):
    for _ in range(10 * LONG):
        if path.exists():
            return
        if process.poll() is not None:
            pytest.fail(f"ended before {path.name} was written: {process.communicate()[1]}")
        time.sleep(0.1)
    pytest.fail(f"{path.name} was not written in {LONG} s")


def child_of_rank(process, rank):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    wanted = f"RANK={rank}".encode()
    return next(int(pid) for pid in children if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


def test_a_killed_process_ends_the_run_and_resuming_finishes_it(tmp_path, root):
    """Oracle: exit status and message after SIGKILL; then the files of one process, written once, and run.json."""
    process = torchrun(root, "qat", "--out", str(tmp_path), *SMALL, "--schedule", "constant", "--epochs", "500")
    try:
        wait_for(tmp_path / "last.pt", process)
        os.kill(child_of_rank(process, 1), signal.SIGKILL)
        _, errors = process.communicate(timeout=LONG)
    finally:
        process.terminate()  # torchrun ends its children
    assert process.returncode != 0 and ("SIGKILL" in errors or "lost the others" in errors)
    assert not (tmp_path / "lsq.pt").exists()
    process = torchrun(
        root, "qat", "--out", str(tmp_path), *SMALL, "--schedule", "constant", "--epochs", "1", "--resume"
    )
    printed, errors = process.communicate(timeout=LONG)
    assert process.returncode == 0, errors
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"lsq.pt", "ema.pt", "lsq.npz", "ema.npz", "log.csv", "run.json"}
    measured = json.loads((tmp_path / "run.json").read_text())
    assert measured["processes"] == 2 and printed.count("processes") == 1
    assert oscillab.Recording.open(tmp_path / "lsq.npz").steps[-1] == measured["steps"] >= 4


def test_a_silent_process_ends_the_run_with_a_sentence(tmp_path, root):
    """Oracle: a process is stopped (not ended) and can answer nothing; the other says so after its timeout and ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    command = ["oscillab", "qat", "--out", str(tmp_path), *SMALL, "--epochs", "500", "--timeout", "30"]
    first, second = (started(command, root, RANK=str(rank), **meeting) for rank in (0, 1))
    try:
        wait_for(tmp_path / "last.pt", first)
        second.send_signal(signal.SIGSTOP)
        _, errors = first.communicate(timeout=LONG)
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
    assert first.returncode == 2
    assert "error: process 0 of 2 lost the others: one has ended or has not answered for 30 s" in errors
    assert "Traceback" not in errors
