"""Does rank 0 alone record, and is a rank that has gone astray found out?"""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from oscillab.recording.layers import WatchedLayers
from oscillab.recording.observers import Ranks, checksums, without_wrapper
from oscillab.recording.recording import Recording

TWO_RANKS = """
import os
import sys
import torch
from torch import nn
from oscillab.quant import QuantSpec, quantize
from oscillab.recording.recorder import record

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 2, 1))
quantize(net, QuantSpec(bits=3), [torch.rand(2, 3, 12, 12)]).train()
model = nn.parallel.DistributedDataParallel(net)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
generator = torch.Generator().manual_seed(rank)  # every rank has pictures of its own

def train(steps):
    for _ in range(steps):
        optimizer.zero_grad()
        (model(torch.rand(2, 3, 12, 12, generator=generator)) - 1).square().mean().backward()
        optimizer.step()

with record(model, optimizer, ranks_every=5, path=f"{folder}/rank{rank}.npz") as recorder:
    train(23)
    print(recorder.step_count, recorder.tick_count)
    try:
        print(recorder.recording().layer_names)
    except ValueError as error:
        print(error)
    if rank == 1:
        net[2].weight.data[0, 0] += 10 * net[2].weight_quantizer.step_size
    try:
        train(7)
    except ValueError as error:
        print(error)
torch.distributed.barrier()
sys.stdout.flush()
os._exit(0)  # all was said: gloo's threads now and then abort the interpreter while it is taken down
"""


def run_two(folder, root):
    """What each of two ranks prints, as lists of lines."""
    environment = os.environ | {"PYTHONPATH": str(root), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TWO_RANKS]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen([*command, str(rank), str(folder)], **options) for rank in (0, 1)]
    printed = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    return [out.splitlines() for out, _ in printed]


@pytest.mark.skipif(not torch.distributed.is_available() or sys.platform != "linux", reason="needs gloo")
def test_two_ranks(tmp_path, root):
    """Oracle: by hand: equal for 23 steps; a weight of rank 1 is moved ten bins, and the next comparison, at 25, says so."""
    first, second = run_two(tmp_path, root)
    error = (
        "rank 1 differs from rank 0 in the integer states of layer '2', seen after step 25; recording has ended, "
        "25 recorded steps stay readable"
    )
    assert first == ["23 23", "['0', '2']", error]
    assert second == ["23 23", "rank 1 records nothing; rank 0 does", error]
    recording = Recording.open(tmp_path / "rank0.npz")
    assert recording.steps.tolist() == list(range(26)) and recording["layer_flip_count"].sum() > 0
    assert "rank 1 differs" in recording.meta["stopped"] and not (tmp_path / "rank1.npz").exists()


def test_a_process_alone_records():
    """Oracle: nothing is compared where torch.distributed was not initialised, nor where that is not wanted."""
    for ranks in (Ranks(250), Ranks(0)):
        assert ranks.records and not ranks.due(0) and not ranks.due(250)


def test_a_single_changed_state_changes_one_checksum(fakes):
    """Oracle: an invariant of CRC-32, which finds every change of a single byte; the order of memory does not matter."""
    net = fakes.Net([[[[0.0, 1.0], [2.0, 3.0]]] * 2], [[0.0]])
    layers, last = WatchedLayers(net), WatchedLayers(net.to(memory_format=torch.channels_last))
    states = layers.integer_states(torch.empty(9, dtype=torch.int8))
    before = checksums(layers, states)
    assert checksums(last, last.integer_states(torch.empty(9, dtype=torch.int8))) == before
    states[3] += 1
    after = checksums(layers, states)
    assert after["stem"] != before["stem"] and after["block.1"] == before["block.1"]


def test_only_the_wrapper_of_ddp_is_taken_off():
    """Oracle: a module that has a child named `module` is not one."""
    model = nn.Module()
    model.module = nn.Identity()
    assert without_wrapper(model) is model
