"""Are inputs, gradients' signs and positions observed as they are, and a rank that has gone astray found out?"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.quant import QuantSpec, quantize
from oscillab.recording.crowding import CELLS_PER_BIN, position_histogram
from oscillab.recording.layers import WatchedLayers
from oscillab.recording.observers import (
    GradientSigns,
    RangeObserver,
    Ranks,
    checksums,
    sampling_stride,
    without_wrapper,
)
from oscillab.recording.recorder import record
from oscillab.recording.recording import Recording
from oscillab.recording.snapshot import limits_of
from oscillab.recording.tables import layers
from oscillab.recording.tracker import in_storage_order


class Ranged(nn.Identity):
    """A module with a range."""

    def activation_range(self):
        return torch.tensor(-1.0), torch.tensor(2.0)


@pytest.fixture
def pair():
    """(module, armed observer); hooks are off again afterwards."""
    module = Ranged()
    observer = RangeObserver([module], torch.device("cpu"))
    observer.arm()
    yield module, observer
    observer.disarm()


def test_lowest_highest_and_share_by_hand(pair):
    """Oracle: two forwards by hand; 2 of 8 inputs lie outside -1..2, the ends of the range do not."""
    module, observer = pair
    module(torch.tensor([-1.0, 2.0, 0.5, 3.0]))
    module(torch.tensor([-4.0, 0.0, 0.0, 0.0]))
    row = {name: tensor.item() for name, tensor in observer.row().items()}
    assert row == {"observed_low": -4.0, "observed_high": 3.0, "clipped_share": 0.25}
    assert observer.row()["observed_low"].isnan().all()  # it was forgotten


def test_large_inputs_are_sampled_for_the_share_only(pair):
    """Oracle: the whole tensor: lowest and highest equal, share within 2 points (five standard errors of 16,000)."""
    module, observer = pair
    x = torch.randn(4, 64, 40, 40, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    x = x * torch.arange(64).reshape(1, -1, 1, 1) / 16  # channels differ: a sample of one channel would be far off
    module(x)
    row = observer.row()
    assert row["observed_low"] == x.min() and row["observed_high"] == x.max()
    assert row["clipped_share"].item() == pytest.approx(((x < -1) | (x > 2)).float().mean().item(), abs=0.02)


def test_evaluation_is_not_observed(pair):
    """Oracle: an invariant; eval mode, no_grad and inference mode leave NaN."""
    module, observer = pair
    module.eval()
    module(torch.ones(3))
    module.train()
    with torch.no_grad():
        module(torch.ones(3))
    with torch.inference_mode():
        module(torch.ones(3))
    assert all(tensor.isnan().all() for tensor in observer.row().values())


def test_no_graph_is_kept(pair):
    """Oracle: nothing that the observer holds asks for a gradient, nor keeps the input alive."""
    module, observer = pair
    module(torch.ones(3, requires_grad=True) * 2)
    held = [value for look in observer._looks for value in look if isinstance(value, torch.Tensor)]
    assert held and not any(value.requires_grad for value in held)
    assert all(value.untyped_storage().nbytes() <= 8 for value in held)  # a number each, no view of the input


def test_storage_order_is_a_view_where_it_can_be():
    """Oracle: the same values, and the same memory for contiguous and channels-last tensors."""
    x = torch.arange(48.0).reshape(2, 3, 2, 4)
    for dense in (x, x.to(memory_format=torch.channels_last)):
        assert in_storage_order(dense).data_ptr() == dense.data_ptr()
        assert torch.equal(in_storage_order(dense).sort().values, x.reshape(-1))
    assert torch.equal(in_storage_order(x[:, :, :, ::2]), x[:, :, :, ::2].reshape(-1))
    assert torch.equal(in_storage_order(x[1:]), x[1:].reshape(-1))


def test_the_stride_meets_every_channel():
    """Oracle: `sampling_stride` shares no factor with the count."""
    assert all(torch.gcd(torch.tensor(sampling_stride(n)), torch.tensor(n)) == 1 for n in (1, 2**20, 3 * 10**6, 7**7))


def small_net(**spec):
    """A real quantized network of two convolutions."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 2, 1))
    return quantize(net, QuantSpec(bits=3, **spec), [torch.rand(2, 3, 12, 12)]).train()


def signs_of(net):
    """The signs of the gradients of all step sizes, weights' first."""
    sizes = [getattr(net[i], side).step_size for side in ("weight_quantizer", "input_quantizer") for i in (0, 2)]
    return torch.cat([size.grad.reshape(-1).sign() for size in sizes]).numpy()


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_equal_to_the_gradients_of_a_real_training(granularity):
    """Oracle: numpy on the gradients that the test reads before each step; they are cleared right after it."""
    net = small_net(weight_granularity=granularity)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    generator, signs = torch.Generator().manual_seed(1), []
    with record(net, optimizer) as recorder:
        for _ in range(40):
            images, target = torch.rand(2, 3, 12, 12, generator=generator), torch.rand(1, generator=generator)
            (net(images) - target).square().mean().backward()
            signs.append(signs_of(net))
            optimizer.step()
            optimizer.zero_grad()
    turned = np.array(signs)[1:] * np.array(signs)[:-1] == -1
    weights, inputs = turned[:, :-2], turned[:, -2:]
    recording, per_layer = recorder.recording(), [1, 1] if granularity == "per_tensor" else [4, 2]
    counts = np.stack([part.sum(1) for part in np.split(weights, np.cumsum(per_layer)[:-1], axis=1)], axis=1)
    assert turned.sum() > 20
    np.testing.assert_array_equal(recording["gradient_turn_count"][2:], counts)
    np.testing.assert_array_equal(recording["input_gradient_turn_count"][2:], inputs)
    assert not recording["gradient_turn_count"][:2].any()  # nothing to compare the first gradient with
    table = layers(recording)
    np.testing.assert_allclose(table["gradient_turn_rate"], counts.sum(0) / np.array(per_layer) / 40)
    np.testing.assert_allclose(table["input_gradient_turn_rate"], inputs.sum(0) / 40)


def test_no_sign_changes_nothing():
    """Oracle: by hand: zero, NaN and a missing gradient lie between two of one sign, then between two of different signs."""
    net = small_net()
    watched = GradientSigns(WatchedLayers(net))
    size, turns = net[0].weight_quantizer.step_size, []
    for gradient in (1.0, 0.0, 2.0, float("nan"), 1.0, None, -1.0, 0.0, 3.0):
        size.grad = None if gradient is None else torch.tensor(gradient)
        turns.append(watched.sign_changes()[0, 0].item())
    assert turns == [0, 0, 0, 0, 0, 0, 1, 0, 1]


def test_what_is_not_trained_has_no_column(fakes):
    """Oracle: an average and a layer without step size parameters; the tables say NaN."""
    _, recording = fakes.run([[0], [1]])
    assert "gradient_turn_count" not in recording and layers(recording)["gradient_turn_rate"].isna().all()
    average = small_net().requires_grad_(False)
    with record(average, fakes.Average()) as recorder:
        pass
    assert "input_gradient_turn_count" not in recorder.recording()


def test_one_of_two_layers_is_trained():
    """Oracle: the layer whose step size is fixed has NaN and not 0."""
    net = small_net()
    net[2].weight_quantizer.step_size.requires_grad_(False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with record(net, optimizer) as recorder:
        net(torch.rand(2, 3, 12, 12)).sum().backward()
        optimizer.step()
    assert layers(recorder.recording())["gradient_turn_rate"].isna().tolist() == [False, True]


def test_equals_numpys_histogram(fakes):
    """Oracle: numpy.histogram over the same cells, on random weights away from the cells' edges."""
    generator = torch.Generator().manual_seed(0)
    net = fakes.Net([[0.0] * 5000], step_size=0.5)
    cells = 9 * CELLS_PER_BIN
    place = (torch.randint(0, cells, (1, 5000), generator=generator) + 0.5) / CELLS_PER_BIN - 5
    net.stem.weight.data = place * 0.5
    histogram = position_histogram(WatchedLayers(net).layers[0], -4, 3)
    expected, _ = np.histogram(place.numpy(), bins=cells, range=(-5, 4))
    np.testing.assert_array_equal(histogram, expected)


def test_what_lies_beyond_or_nowhere(fakes):
    """Oracle: by hand: -100 in the first cell, +100 in the last, NaN and infinity in none."""
    net = fakes.Net([[0.0] * 4], step_size=0.5)
    net.stem.weight.data = torch.tensor([[-50.0, 50.0, float("nan"), float("inf")]])
    histogram = position_histogram(WatchedLayers(net).layers[0], -4, 3)
    assert histogram[0] == histogram[-1] == 1 and histogram.sum() == 2


def test_limits():
    """Oracle: by hand: unsigned only where a state is too large for signed; unknown bits take the fewest that fit."""
    states = torch.tensor([-1, 0, 3], dtype=torch.int8)
    assert limits_of(8, states) == (-128, 127)
    assert limits_of(None, states) == (-4, 3)
    assert limits_of(None, torch.tensor([-128, 127], dtype=torch.int8)) == (-128, 127)
    assert limits_of(2, states) == (0, 3)


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
