"""Q-EMA: rounding to the neighbour nearer to the average, by hand; and plain LSQ where average and weight agree."""

import copy

import pytest
import torch

from oscillab.quant import QuantConv2d
from oscillab.recording.recorder import record
from oscillab.study.ablation.q_ema import QEma, QEmaConv2d
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


def test_the_neighbour_nearer_to_the_average():
    """Oracle: by hand; the neighbours of 1.4 are 1 and 2, of -0.2 are -1 and 0, and an average beyond both takes the
    nearer end; a weight on the grid has no choice; beyond the grid it is its end."""
    positions = [1.4, 1.4, 1.4, 1.4, -0.2, 2.0, 9.0]
    averages = [1.6, 1.2, 3.0, -2.0, -0.7, 0.1, 0.1]
    assert layer_of(positions, averages).integer_state().flatten().tolist() == [2, 1, 2, 1, -1, 2, 3]


def test_gradients_by_hand():
    """Oracle: by hand; to w it is straight through within -4..3 and 0 beyond; to s it is the state minus w / s within,
    the limit beyond, times 1 / sqrt(4 * 3)."""
    layer = layer_of([1.4, 1.4, -0.2, 9.0], [1.6, 1.2, -0.7, 0.1])
    layer._quantized_weight().sum().backward()
    assert layer.weight.grad.flatten().tolist() == [1, 1, 1, 0]
    expected = ((2 - 1.4) + (1 - 1.4) + (-1 + 0.2) + 3) / 12**0.5
    assert layer.weight_quantizer.step_size.grad.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_is_plain_lsq_without_memory(tiny, train_tiny, granularity):
    """Oracle: plain LSQ, bit for bit; with decay 0 the average is the weight, and rounds as the weight does."""
    plain, model = tiny(weight_granularity=granularity), tiny(weight_granularity=granularity)
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


def test_flips_are_fewer(tiny, train_tiny):
    """Oracle: the purpose; an average crosses an edge less often than its weight (0.54 of the flips when written)."""
    assert run(tiny(), train_tiny, 60, decay=0.95) < 0.7 * run(tiny(), train_tiny, 60, decay=0.0)


def test_finalized_model_is_plain_and_gives_the_same(tiny, train_tiny):
    """Oracle: the model before it was plain: output and states bit for bit; and a plain model's modules and keys."""
    model, keys = tiny(), list(tiny().state_dict())
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


def test_the_recorder_sees_the_states_of_the_forward_pass(tiny, train_tiny):
    """Oracle: the states that the forward pass uses, read at the end."""
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    QEma(model, optimizer, 20, decay=0.9).attach()
    with record(model, optimizer) as recorder:
        train_tiny(model, optimizer, 20)
        recording = recorder.recording()
    expected = torch.cat([m.integer_state().flatten() for m in model if isinstance(m, QEmaConv2d)])
    assert recording["integer_state"].tolist() == expected.tolist()


def test_the_average_of_the_run_has_the_averages_of_the_weights(tiny, train_tiny):
    """Oracle: set inclusion of names; an Ema from before Q-EMA lacks them, which is an error."""
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    early = Ema(model)
    QEma(model, optimizer, 20).attach()
    late = Ema(model, decay=0.5)
    assert {"0.weight_average", "3.weight_average", "6.weight_average"} <= late.names()
    with pytest.raises(ValueError, match="0.weight_average was added, removed or replaced"):
        early.update()


def test_bad_options(tiny):
    """Oracle: the sentence a user reads, and a model left as it was."""
    model = tiny()
    with pytest.raises(ValueError, match="decay must be in 0 <= decay < 1, got 1"):
        QEma(model, torch.optim.SGD(model.parameters(), lr=0.1), 4, decay=1)
    assert not any(isinstance(module, QEmaConv2d) for module in model)
