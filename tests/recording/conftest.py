"""Small layers that follow the recorder's protocol, and training that takes them to states that a test has chosen."""

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.recording.recorder import record


class FakeLayer(nn.Module):
    """A layer of another library: integer `states` to start from, one step size or one a row, a range of -1..1."""

    def __init__(self, states, *, bits=3, step_size=0.5, has_range=True):
        super().__init__()
        states = torch.as_tensor(states, dtype=torch.float32)
        self.register_buffer("step", torch.as_tensor(step_size, dtype=torch.float32))
        self.weight = nn.Parameter(states * self._step(states))
        self.bits, self.has_range = bits, has_range

    def _step(self, weight):
        return self.step.reshape(-1, *[1] * (weight.ndim - 1)) if self.step.ndim else self.step

    def integer_state(self):
        limit = 2 ** (self.bits - 1)
        return (self.weight.detach() / self._step(self.weight)).round().clamp(-limit, limit - 1).to(torch.int8)

    def weight_step_size(self):
        return self.step

    def activation_range(self):
        return (torch.tensor(-1.0), torch.tensor(1.0)) if self.has_range else None

    def forward(self, x):
        return (x.reshape(len(x), -1) * self.weight.reshape(1, -1)[:, :1]).sum(1, keepdim=True)


class FakeNet(nn.Module):
    """Two fake layers, one inside a block, and a plain one that is not recorded."""

    def __init__(self, first, second=((0, 0),), **options):
        super().__init__()
        self.stem = FakeLayer(first, **options)
        self.block = nn.Sequential(nn.Linear(1, 1), FakeLayer(second, bits=8, has_range=False))

    def forward(self, x):
        return self.block(self.stem(x))


class Average:
    """An optimizer's hook without an optimizer, as an average of weights has it."""

    def __init__(self):
        self.hooks = []

    def register_step_post_hook(self, hook):
        self.hooks.append(hook)
        return type("Handle", (), {"remove": lambda _: self.hooks.remove(hook)})()

    def step(self):
        for hook in list(self.hooks):
            hook(self, (), {})


def step_to(optimizer, weight, target):
    """One step of an SGD optimizer of learning rate 1 that takes `weight` to `target`."""
    weight.grad = weight.detach() - torch.as_tensor(target, dtype=weight.dtype).reshape(weight.shape)
    optimizer.step()


def record_states(states, *, bits=3, step_size=0.5, **options):
    """(recorder, recording) of one layer whose weights (1, weights) go through the rows of `states`."""
    states = np.asarray(states)
    net = FakeNet(states[:1], bits=bits, step_size=step_size)
    optimizer = torch.optim.SGD([net.stem.weight], lr=1.0)
    with record(net, optimizer, **options) as recorder:
        for row in states[1:]:
            step_to(optimizer, net.stem.weight, row * step_size)
    return recorder, recorder.recording()


@pytest.fixture(scope="session")
def fakes():
    """The fake layers and what drives them."""
    names = {"Layer": FakeLayer, "Net": FakeNet, "Average": Average}
    return type(
        "fakes", (), names | {k: staticmethod(f) for k, f in {"step_to": step_to, "run": record_states}.items()}
    )


@pytest.fixture
def random_states():
    """`random_states(steps, weights, low, high)`: walks that often stay, flip, and jump over bins now and then."""

    def walk(steps, weights, low, high, seed=0):
        generator = np.random.default_rng(seed)
        moves = generator.choice([-3, -1, 0, 1, 3], (steps, weights), p=[0.02, 0.18, 0.6, 0.18, 0.02])
        states = np.zeros((steps, weights), int)
        for t in range(1, steps):
            states[t] = np.clip(states[t - 1] + moves[t], low, high)
        return states.astype(np.int8)

    return walk
