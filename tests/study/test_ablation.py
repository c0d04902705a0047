"""Q-EMA and scale freezing: rounding to the neighbour nearer to the average, by hand; step sizes held to the bit."""

import copy

import pytest
import torch

from oscillab.quant import QuantConv2d, step_sizes
from oscillab.recording.recorder import record
from oscillab.study.ablation import QEma, QEmaConv2d, ScaleFreezing
from oscillab.train.ema import Ema


def layer_of(positions, averages, *, step_size=0.5):
    """A Q-EMA layer on 0.5 * (-4..3) whose weights and averages lie at these positions (in bins)."""
    layer = QuantConv2d(len(positions), 1, 1, bits=3, bias=False)
    layer.weight_quantizer.calibrate(torch.tensor([-1.0, 1.0]))
    layer.input_quantizer.enabled = False
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(positions).view(1, -1, 1, 1) * step_size)
        layer.weight_quantizer.step_size.fill_(step_size)
    QEmaConv2d.from_quantized(layer).weight_average.copy_(torch.tensor(averages).view(1, -1, 1, 1) * step_size)
    return layer


def test_neighbours_and_gradients_by_hand():
    """Oracle: by hand: the neighbour nearer to the average, or the end; to s state - w / s, or the limit / sqrt(12)."""
    positions = [1.4, 1.4, 1.4, 1.4, -0.2, 2.0, 9.0]
    averages = [1.6, 1.2, 3.0, -2.0, -0.7, 0.1, 0.1]
    assert layer_of(positions, averages).integer_state().flatten().tolist() == [2, 1, 2, 1, -1, 2, 3]
    layer = layer_of([1.4, 1.4, -0.2, 9.0], [1.6, 1.2, -0.7, 0.1])
    layer._quantized_weight().sum().backward()
    assert layer.weight.grad.flatten().tolist() == [1, 1, 1, 0]
    expected = ((2 - 1.4) + (1 - 1.4) + (-1 + 0.2) + 3) / 12**0.5
    assert layer.weight_quantizer.step_size.grad.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_is_plain_lsq_without_memory(tiny_network, train_tiny, granularity):
    """Oracle: plain LSQ, bit for bit; with decay 0 the average is the weight, and rounds as the weight does."""
    plain, model = tiny_network(weight_granularity=granularity), tiny_network(weight_granularity=granularity)
    train_tiny(plain, torch.optim.Adam(plain.parameters(), lr=0.01), 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    remedy = QEma(model, optimizer, 10, decay=0.0).attach()
    train_tiny(model, optimizer, 10)
    remedy.finalize(model)
    assert all(torch.equal(a, plain.state_dict()[name]) for name, a in model.state_dict().items())


def run(model, train_tiny, steps, **options):
    """The flips in `steps` steps, counted on the states of the forward pass, after as many steps that are not counted."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    remedy, states = QEma(model, optimizer, 2 * steps, **options).attach(), []
    look = lambda step: states.append(torch.cat([la.integer_state().flatten() for la in remedy.layers]))  # noqa: E731
    train_tiny(model, optimizer, 2 * steps, each=look)
    return int(torch.stack(states[steps:]).diff(dim=0).ne(0).sum())


def test_flips_are_fewer(tiny_network, train_tiny):
    """Oracle: 0.54 of the flips when written; the finalized model: its output, states and keys; an Ema from before."""
    assert run(tiny_network(), train_tiny, 60, decay=0.95) < 0.7 * run(tiny_network(), train_tiny, 60, decay=0.0)
    model, keys = tiny_network(), list(tiny_network().state_dict())
    run(model, train_tiny, 20, decay=0.9)
    remedy = QEma(model, torch.optim.SGD(model.parameters(), lr=0.05), 20)
    images = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(5))
    plain = remedy.finalize(copy.deepcopy(model))
    layers = [layer for layer in model if isinstance(layer, QEmaConv2d)]
    assert any((la._decided() != la._plain()).any() for la in layers)
    with torch.no_grad():
        assert torch.equal(model(images), plain(images))
    pairs = [(a, b) for a, b in zip(model, plain, strict=True) if isinstance(a, QEmaConv2d)]
    assert len(pairs) == 3 and all(torch.equal(a.integer_state(), b.integer_state()) for a, b in pairs)
    assert all(type(b) is QuantConv2d for _, b in pairs) and list(plain.state_dict()) == keys
    model = tiny_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    early = Ema(model)
    QEma(model, optimizer, 20).attach()
    late = Ema(model, decay=0.5)
    assert {"0.weight_average", "3.weight_average", "6.weight_average"} <= late.names()
    with pytest.raises(ValueError, match="0.weight_average was added, removed or replaced"):
        early.update()


def test_the_recorder_sees_the_states_of_the_forward_pass(tiny_network, train_tiny):
    """Oracle: the states that the forward pass uses, read at the end."""
    model = tiny_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    QEma(model, optimizer, 20, decay=0.9).attach()
    with record(model, optimizer) as recorder:
        train_tiny(model, optimizer, 20)
        recording = recorder.recording()
    expected = torch.cat([m.integer_state().flatten() for m in model if isinstance(m, QEmaConv2d)])
    assert recording["integer_state"].tolist() == expected.tolist()


def frozen_run(model, steps=8, **options):
    """AdamW with decay on everything, momentum included, and step sizes that stop half-way."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.3)
    return optimizer, ScaleFreezing(model, optimizer, steps, **({"begin": 0.5} | options)).attach()


def copies(model):
    return {name: p.detach().clone() for name, p in step_sizes(model).items()}


def test_held_to_the_bit_from_half_time_on(tiny_network, train_tiny):
    """Oracle: the step sizes after step 4 of 8, resumed too; after `remove` they learn; a part alone stands still."""
    model, seen, weights = tiny_network(activation="affine"), [], []
    optimizer, _ = frozen_run(model)
    look = lambda step: (seen.append(copies(model)), weights.append(model[0].weight.detach().clone()))  # noqa: E731
    train_tiny(model, optimizer, 8, each=look)
    for name in seen[0]:
        assert not torch.equal(seen[0][name], seen[3][name]), name
        assert all(torch.equal(seen[3][name], later[name]) for later in seen[4:]), name
    assert not torch.equal(weights[6], weights[7])
    model = tiny_network()
    optimizer, remedy = frozen_run(model)
    train_tiny(model, optimizer, 5)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.requires_grad_(True)
    second, resumed = frozen_run(other)
    resumed.load_state_dict(remedy.state_dict())
    before = copies(other)
    train_tiny(other, second, 1)
    assert all(torch.equal(before[name], after) for name, after in copies(other).items())
    resumed.remove()
    train_tiny(other, second, 1)
    assert not any(torch.equal(before[name], after) for name, after in copies(other).items())
    for part, kind in (("weights", "weight_quantizer"), ("activations", "input_quantizer")):
        model = tiny_network()
        optimizer, _ = frozen_run(model, begin=0.0, parts=(part,))
        before = copies(model)
        train_tiny(model, optimizer, 3)
        after = copies(model)
        assert {name for name in before if torch.equal(before[name], after[name])} == {n for n in before if kind in n}


@pytest.mark.parametrize("build, words", [
    (lambda model: QEma(model, None, 4, decay=1), "decay must be in 0 <= decay < 1, got 1"),
    (lambda model: frozen_run(model, parts=("scales",)), "parts must be among weights, activations, got scales"),
])  # fmt: skip
def test_bad_options(tiny_network, build, words):
    """Oracle: the sentence a user reads, and a model left as it was."""
    model = tiny_network()
    with pytest.raises(ValueError, match=words):
        build(model)
    assert not any(isinstance(module, QEmaConv2d) for module in model)
