"""The account of where a step's time goes, with a clock that is set by hand, and what it must leave alone."""

import copy
from dataclasses import replace

import pytest
import torch

from oscillab.quant import quant_layers
from oscillab.recording.recorder import record
from oscillab.train.spec import TrainSpec
from oscillab.train.timing import StepClock
from oscillab.train.trainer import Trainer
from oscillab.yolo.loss import DetectionLoss

SPEC = TrainSpec(epochs=2, learning_rate=1e-3, warmup_steps=0)


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time

    def batches(self, count, seconds):
        for number in range(count):
            self.time += seconds
            yield number


def test_a_second_counts_for_the_innermost_phase():
    """Oracle: by hand; of 4 steps those of numbers 1 and 3 are timed: 2 s of data, 3 s forward of which 1 in quantizers,
    0.5 s between phases."""
    hands = Hands()
    clock = StepClock(2, now=hands)
    for number in clock.steps(hands.batches(4, 2.0)):
        with clock.phase("forward"):
            hands.time += 1.0
            with clock.phase("quantizers"):
                hands.time += 1.0 if number % 2 else 50.0
            hands.time += 1.0
        hands.time += 0.5
    assert clock.step_count == 2
    assert clock.seconds() == {"data": 2.0, "forward": 2.0, "quantizers": 1.0, "rest": 0.5}
    assert clock.text() == (
        "a step takes 5.5 s: data 36.4%, forward 36.4%, quantizers 18.2%, rest 9.1% (2 steps timed)"
    )


def test_no_step_is_timed_where_that_is_not_wanted():
    """Oracle: no account, and a clock that is never looked at."""
    clock = StepClock(0, now=lambda: pytest.fail("the clock was looked at"))
    assert list(clock.steps(iter(range(20)))) == list(range(20))
    assert clock.seconds() == {} and clock.text() == ""
    with pytest.raises(ValueError, match="time_every must be 0 or more steps, got -1"):
        StepClock(-1)


def test_hooks_of_a_watched_optimizer_are_a_phase():
    """Oracle: by hand; the step takes no time but the 3 s of its hook, and other attributes are the optimizer's."""
    hands = Hands()
    clock = StepClock(1, now=hands)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    watched = clock.timed(optimizer, "recorder")

    def hook(*_):
        hands.time += 3.0

    handle = watched.register_step_post_hook(hook)
    for _ in clock.steps([0]):
        with clock.phase("optimizer"):
            optimizer.step()
    assert clock.seconds() == {"recorder": 3.0, "rest": 0.0, "data": 0.0, "optimizer": 0.0}
    handle.remove()
    assert watched.param_groups is optimizer.param_groups and not optimizer._optimizer_step_post_hooks


def test_timing_changes_no_weight_and_leaves_no_hook(quantized, batches):
    """Oracle: the run that times nothing, bit for bit; phases that the issue names, each above 0, no hook left behind."""
    weights = []
    for every in (0, 1):
        model = copy.deepcopy(quantized)
        trainer = Trainer(model, DetectionLoss(model), batches, replace(SPEC, time_every=every), progress=False)
        with record(model, trainer.clock.timed(trainer.optimizer, "recorder")):
            trainer.fit()
        weights.append(model.state_dict())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    seconds = trainer.clock.seconds()
    assert trainer.clock.step_count == 8
    named = {"data", "forward", "loss", "backward", "optimizer", "quantizers", "recorder", "callbacks", "rest"}
    assert set(seconds) == named and min(seconds.values()) > 0


def test_quantizers_are_timed_forward_and_backward(tiny):
    """Oracle: by hand; a clock that moves a second each time a quantizer's rounding or its gradient is worked out.

    Three layers have two quantizers each: 6 forwards and 6 backwards, for the first input needs the step size's gradient.
    """
    hands, model = Hands(), tiny()
    clock = StepClock(1, now=hands)
    inside = torch.autograd.Function

    def moved(function):
        def call(*arguments):
            hands.time += 1.0
            return function(*arguments)

        return staticmethod(call)

    from oscillab.quant import lsq
    from oscillab.quant.kernel import kernel_off

    kind = lsq._Lsq
    assert issubclass(kind, inside)
    forward, backward = kind.forward, kind.backward
    kind.forward, kind.backward = moved(forward), moved(backward)
    try:
        with kernel_off():  # the compiled quantizer is another function, called by the same modules
            for _ in clock.steps([0], model=model.train()):
                with clock.phase("forward"):
                    loss = model(torch.rand(2, 3, 10, 10)).square().mean()
                with clock.phase("backward"):
                    loss.backward()
    finally:
        kind.forward, kind.backward = staticmethod(forward), staticmethod(backward)
    assert clock.seconds() == {"quantizers": 12.0, "rest": 0.0, "data": 0.0, "forward": 0.0, "backward": 0.0}
    assert len(quant_layers(model)) == 3
