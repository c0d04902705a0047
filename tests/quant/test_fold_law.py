"""Folding and the exact form change no output, whatever the network: properties, by hypothesis.

Oracle: the output before. Inputs are not rounded, or a last-digit difference could become a bin; float64 throughout.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from oscillab.quant import QuantSpec, quant_layers, quantize
from oscillab.quant.exact import exact
from oscillab.quant.fold import CorrectedConv2d, corrections, fold, insert_corrections

CHOICES = {"width": [4, 6], "kernel": [1, 3], "stride": [1, 2], "groups": [1, 2], "bias": [True, False]}
CHOICES |= {"between": ["nothing", "relu", "a shortcut", "the batch norm itself"], "conv": ["own", "earlier"]}
CHOICES |= {"bn": ["own", "earlier", "none"], "inside": [True, False]}  # of a Sequential into which forward reaches
STEP = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in CHOICES.items()})


class Net(nn.Module):
    """Steps of convolution, something, batch norm, registered in any order, some used again where they fit."""

    def __init__(self, steps, order):
        super().__init__()
        self.steps, made, convs, bns, channels = [], {}, {}, {}, 3
        for i, step in enumerate(steps):
            sides, groups = (channels, step["width"]), step["groups"] if channels % 2 == 0 else 1
            conv = nn.Conv2d(*sides, step["kernel"], step["stride"], 1, groups=groups, bias=step["bias"])
            bn = nn.Identity() if step["bn"] == "none" else nn.BatchNorm2d(step["width"])
            conv = convs.get(sides, conv) if step["conv"] == "earlier" else conv
            bn = bns.get(step["width"], bn) if step["bn"] == "earlier" else bn
            convs[sides], bns[step["width"]], channels = conv, bn, step["width"]
            made |= {f"s{i}": nn.Sequential(conv, bn)} if step["inside"] else {f"conv{i}": conv, f"bn{i}": bn}
            self.steps.append((step["between"], *((f"s{i}.0", f"s{i}.1") if step["inside"] else list(made)[-2:])))
        for name in order(list(made)):
            self.add_module(name, made[name])

    def forward(self, x):
        for between, *names in self.steps:
            conv, bn = map(self.get_submodule, names)
            x = y = conv(x)
            y = y.relu() if between == "relu" else bn(y) if "batch norm" in between else y
            x = x + bn(y) if between == "a shortcut" else bn(y).relu()
        return x


def quantized(steps, order=list, rounded=0):
    """The network in eval mode with statistics of its own, the inputs of so many convolutions rounded, and an input."""
    torch.manual_seed(0)
    net, x = Net(steps, order).double(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    net(x)
    for layer in list(quant_layers(quantize(net.eval(), QuantSpec(), [x])).values())[rounded:]:
        layer.input_quantizer.enabled = False
    return net, x


@given(st.lists(STEP, min_size=1, max_size=3), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None, derandomize=True)
@torch.no_grad()
def test_folding_changes_no_output(steps, random):
    """Oracle: see above; the names and modules of before, with factors that are not the identity."""
    net, x = quantized(steps, lambda names: random.sample(names, len(names)))
    modules = dict(net.named_modules(remove_duplicate=False))
    for one in corrections(insert_corrections(net)).values():
        one.correction_scale.uniform_(0.7, 1.4), one.correction_shift.uniform_(-0.3, 0.3)
    before = net(x)
    torch.testing.assert_close(fold(net)(x), before, rtol=1e-8, atol=1e-8)
    assert dict(net.named_modules(remove_duplicate=False)) == modules


@given(STEP, STEP)
@settings(max_examples=20, deadline=None, derandomize=True)
@torch.no_grad()
def test_the_exact_form_changes_no_output(step, other):
    """Oracle: see above, single precision's rounding allowed."""
    net, x = quantized([step, other], rounded=1)
    torch.testing.assert_close(exact(net)(x), net(x), rtol=1e-4, atol=1e-4)


def test_what_two_layers_share_is_not_folded_twice():
    """Oracle: the sentence; nothing has changed. Two corrections of one convolution, made by hand, and a tied weight."""
    conv, tied = nn.Conv2d(3, 3, 1), nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(2)))
    tied[1].weight = tied[0].weight
    for net in (nn.Sequential(CorrectedConv2d(conv), CorrectedConv2d(conv)), insert_corrections(tied)):
        before = {key: value.clone() for key, value in net.state_dict().items()}
        with pytest.raises(ValueError, match="cannot fold 0: it would change the weight or bias of another layer"):
            fold(net)
        assert len(corrections(net)) == 2 and all(torch.equal(before[k], v) for k, v in net.state_dict().items())
