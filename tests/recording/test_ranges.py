"""Are inputs observed exactly, in training only, and without a trace?"""

import copy
import doctest
import pickle

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module

from oscillab.recording import ranges
from oscillab.recording.ranges import RangeObserver, in_storage_order, sampling_stride


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


def test_a_copy_is_not_observed_and_copies_as_ever(pair):
    """Oracle: an invariant; the model has no hook, so its copies and pickles are those of any other model."""
    module, observer = pair
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        other(torch.ones(3))
    assert observer.row()["observed_low"].isnan().all()
    assert not module._forward_pre_hooks and not module._forward_hooks


def test_no_graph_is_kept(pair):
    """Oracle: nothing that the observer holds asks for a gradient, nor keeps the input alive."""
    module, observer = pair
    module(torch.ones(3, requires_grad=True) * 2)
    held = [value for look in observer._looks for value in look if isinstance(value, torch.Tensor)]
    assert held and not any(value.requires_grad for value in held)
    assert all(value.untyped_storage().nbytes() <= 8 for value in held)  # a number each, no view of the input


def test_hooks_come_off():
    """Oracle: torch's own list of global hooks is what it was."""
    before = len(torch_module._global_forward_pre_hooks)
    observer = RangeObserver([Ranged()], torch.device("cpu"))
    observer.arm()
    observer.arm()
    assert len(torch_module._global_forward_pre_hooks) == before + 1
    observer.disarm()
    observer.disarm()
    assert len(torch_module._global_forward_pre_hooks) == before


def test_storage_order_is_a_view_where_it_can_be():
    """Oracle: the same values, and the same memory for contiguous and channels-last tensors."""
    x = torch.arange(48.0).reshape(2, 3, 2, 4)
    for dense in (x, x.to(memory_format=torch.channels_last)):
        assert in_storage_order(dense).data_ptr() == dense.data_ptr()
        assert torch.equal(in_storage_order(dense).sort().values, x.reshape(-1))
    assert torch.equal(in_storage_order(x[:, :, :, ::2]), x[:, :, :, ::2].reshape(-1))
    assert torch.equal(in_storage_order(x[1:]), x[1:].reshape(-1))


def test_examples_run():
    """Oracle: the docstring's own numbers; `sampling_stride` shares no factor with the count."""
    assert doctest.testmod(ranges).failed == 0
    assert all(torch.gcd(torch.tensor(sampling_stride(n)), torch.tensor(n)) == 1 for n in (1, 2**20, 3 * 10**6, 7**7))
