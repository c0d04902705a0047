"""Two processes on the CPU (gloo) against one: calibration, gradient, training, average, evaluation."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from oscillab.data.evaluate import in_order
from oscillab.train.ddp import SyncedBatchNorm2d, World, current_world, init_distributed, is_lost_connection, synced_bn

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or sys.platform != "linux", reason="needs gloo on Linux"
)


def start(folder, root, rank=None):
    """A process of two_ranks.py: number `rank` of two, or one alone."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    if rank is not None:
        environment |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(start.port),
            "WORLD_SIZE": "2",
            "RANK": str(rank),
        }
    command = [sys.executable, str(Path(__file__).with_name("two_ranks.py")), str(folder)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def found(tmp_path_factory, root):
    """What one process and each of two found: a mapping from (count, rank)."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        start.port = probe.getsockname()[1]
    processes = [start(folder, root, rank) for rank in (None, 0, 1)]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert not any("Warning" in error for error in errors), errors
    return {key: torch.load(folder / "{}-{}.pt".format(*key)) for key in ((1, 0), (2, 0), (2, 1))}


def distance(one, other):
    return float((one - other).norm() / other.norm())


def test_the_main_process_calibrates_for_all(found):
    """Oracle: the one process's step sizes, limits and floors, bit for bit; the second process saw no picture."""
    for key in ((2, 0), (2, 1)):
        grid = found[key]["grid"]
        assert grid.keys() == found[1, 0]["grid"].keys() and len(grid) > 100
        assert all(torch.equal(tensor, found[1, 0]["grid"][name]) for name, tensor in grid.items())


@pytest.mark.parametrize("bits", [0, 4])
def test_gradient_is_that_of_one_process(found, bits):
    """Oracle: the one process's loss, gradient and running statistics, batch norm in train mode.

    1e-4 allows for float32 sums in another order and, at 4 bit, an input next to a bin edge (measured 4e-6 and 3e-6).
    """
    loss, gradient, statistics = found[1, 0]["gradient"][bits]
    for key in ((2, 0), (2, 1)):
        other_loss, other, other_statistics = found[key]["gradient"][bits]
        assert other_loss == pytest.approx(loss, rel=1e-5)
        assert distance(other, gradient) < 1e-4 and distance(other_statistics, statistics) < 1e-5
    assert torch.equal(found[2, 0]["gradient"][bits][1], found[2, 1]["gradient"][bits][1])


def test_batch_norm_of_their_own_is_another_network(found):
    """A control that the test above can fail: statistics over half the pictures each give another gradient."""
    assert distance(found[2, 0]["own_bn"], found[1, 0]["gradient"][0][1]) > 1e-2
    assert distance(found[1, 0]["own_bn"], found[1, 0]["gradient"][0][1]) == 0
    assert torch.equal(found[2, 0]["own_bn"], found[2, 1]["own_bn"])


def test_training_agrees_with_one_process(found):
    """Oracle: the one process's weights after four steps.

    Float: they differ by less than 1 % of the way that they went (measured 4e-4). At 4 bit a single flip of an input changes
    the loss, so that the runs part, as after a change of the last bit; there it is the losses that must stay close.
    """
    one, two = found[1, 0]["float"], found[2, 0]["float"]
    assert all(torch.equal(tensor, two["before"][name]) for name, tensor in one["before"].items())

    def way(run, to):
        return torch.cat([(to[name] - run["after"][name]).flatten() for name in run["before"]]).norm()

    assert way(two, one["after"]) < 0.01 * way(one, one["before"])
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
    assert found[2, 0]["quantized"]["loss"] == pytest.approx(found[1, 0]["quantized"]["loss"], rel=0.15)


def test_both_processes_hold_the_same_network_and_average(found):
    """Oracle: an invariant: equal to the last bit after training, batch norm and every step size included."""
    for kind in ("float", "quantized"):
        first, second = found[2, 0][kind], found[2, 1][kind]
        for which in ("after", "average"):
            assert all(torch.equal(tensor, second[which][name]) for name, tensor in first[which].items())
        assert not torch.equal(first["after"]["model.1.conv.weight"], first["average"]["model.1.conv.weight"])


def test_evaluation_is_shared_and_gathered_once(found):
    """Oracle: the one process's detections and mAP, bit for bit: each process takes whole batches of the same pictures."""
    value, images, detections = found[1, 0]["evaluation"]
    for key in ((2, 0), (2, 1)):
        other, count, others = found[key]["evaluation"]
        assert other == value > 0 and count == images == 21
        assert all(torch.equal(*pair) for pair in zip(detections, others, strict=True))


@pytest.mark.parametrize("reports", [[{0: "a"}, {0: "a", 1: "b"}], [{0: "a"}, {}], [{0: "a", 1: "b", 2: "c"}]])
def test_an_image_twice_or_never_is_an_error(reports):
    """Oracle: the sentence; a mAP of pictures that count twice would be wrong without a word."""
    with pytest.raises(ValueError, match="each of 2 images must be reported once"):
        in_order(reports, 2)


def test_one_process_alone(monkeypatch):
    """Oracle: an identity: sums, gathering and sharing of one are its own, and nothing is started."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with init_distributed() as world:
        assert world.is_main and (world.rank, world.size) == (current_world().rank, current_world().size) == (0, 1)
    alone = World()
    assert alone.sum([1, 2.5]) == [1.0, 2.5] and alone.min(3) == 3.0
    assert alone.gather("a") == ["a"] and alone.broadcast("a") == "a" and alone.shard("batches") == "batches"
    assert not torch.distributed.is_initialized()
    with synced_bn(torch.nn.Sequential(norm := torch.nn.BatchNorm2d(3)), SyncedBatchNorm2d):
        assert type(norm) is SyncedBatchNorm2d
    assert type(norm) is torch.nn.BatchNorm2d


@pytest.mark.parametrize("device, sentence", [
    ("cuda:1", "device must be cpu or cuda .* under torchrun, got cuda:1"),
    ("cuda", "torchrun started process 1001 on a machine with .* GPUs: lower --nproc-per-node"),
])  # fmt: skip
def test_bad_devices(monkeypatch, device, sentence):
    """Oracle: the sentence a user reads, before any process waits for another."""
    for name, value in {"WORLD_SIZE": "2000", "RANK": "1000", "LOCAL_RANK": "1000"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=sentence), init_distributed(device):
        pass


def test_a_mistake_is_no_lost_connection():
    """Oracle: gloo's own words, and a sentence of torch about shapes, which must keep its traceback."""
    assert is_lost_connection(RuntimeError("[gloo/transport/tcp/pair.cc:544] Connection closed by peer [127.0.0.1]:1"))
    assert not is_lost_connection(RuntimeError("The size of tensor a (2) must match the size of tensor b (3)"))
