"""A compiled run against the same run without: the numbers, and who still sees the forward pass."""

import copy
import shutil
from types import SimpleNamespace

import pytest
import torch

from oscillab.quant.hooks import is_hooked
from oscillab.recording.recorder import record
from oscillab.train.config import TrainSpec
from oscillab.train.trainer import Trainer

SPEC = {"epochs": 1, "learning_rate": 1e-3, "schedule": "constant", "warmup_steps": 0}


class Noise:
    """Six batches of random pixels with random targets."""

    def __len__(self):
        return 6

    def epoch(self, index, start=0):
        generator = torch.Generator().manual_seed(index)
        for _ in range(start, 6):
            images = torch.randint(0, 256, (4, 3, 10, 10), generator=generator, dtype=torch.uint8)
            targets = torch.randn(4, 4, 6, 6, generator=generator)
            yield SimpleNamespace(images=images, targets=targets, masks=None)


def run(model, squared, monkeypatch, **spec):
    """The trainer, the steps in which the compiled network ran, and a recording that saw ranges at every other one."""
    trainer = Trainer(model, squared, Noise(), TrainSpec(**SPEC, **spec), progress=False)
    steps, compiler = [], torch.compile

    def counting(network):
        compiled = compiler(network)
        return lambda images: steps.append(trainer.step) or compiled(images)

    monkeypatch.setattr(torch, "compile", counting)
    with record(model, trainer.optimizer, ranges_every=2) as recorder:
        trainer.fit()
    monkeypatch.undo()
    return trainer, steps, recorder.recording()


def nudged(model, seed):
    """A copy whose weights differ in their last bit."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1 + torch.finfo(p.dtype).eps * (2 * torch.randint(0, 2, p.shape, generator=generator) - 1))
    return model


def distances(run, other):
    """How far two runs ended from each other: their weights and their recorded input ranges, in norm."""
    weights = [torch.cat([p.detach().flatten() for p in trainer.model.parameters()]) for trainer, _, _ in (run, other)]
    names = ("observed_low", "observed_high")
    ranges = [torch.cat([torch.from_numpy(r[name]).flatten() for name in names]) for _, _, r in (run, other)]
    return [float((a - b).norm()) for a, b in (weights, ranges)]


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.slow
def test_compiled_training_agrees(tiny, squared, monkeypatch):
    """Oracle: the run without compiling, to rounding: it ends no farther from it than runs that start from weights changed
    in their last bit, times 3, as the worst of a few draws is not the worst of all. (Adam turns a gradient that is nothing but
    rounding into a full step, so that no fixed tolerance holds on every processor.) A run whose step sizes rest ends farther.
    Steps whose ranges are recorded run without."""
    start = tiny(bits=8)
    plain = run(copy.deepcopy(start), squared, monkeypatch)
    compiled = run(copy.deepcopy(start), squared, monkeypatch, compile=True)
    assert not plain[1] and compiled[1] == [0, 2, 4]
    noise = [distances(run(nudged(start, seed), squared, monkeypatch), plain) for seed in range(4)]
    bounds = [3 * max(each) for each in zip(*noise, strict=True)]
    assert all(found < bound for found, bound in zip(distances(compiled, plain), bounds, strict=True))
    control = distances(run(copy.deepcopy(start), squared, monkeypatch, step_size_rate=0.0), plain)
    assert all(found > bound for found, bound in zip(control, bounds, strict=True))


def test_hooks_are_seen(tiny):
    """Oracle: by hand; a hook of one module, one of all modules, and none."""
    model = tiny()
    for register in (model[3].register_forward_pre_hook, torch.nn.modules.module.register_module_forward_pre_hook):
        assert not is_hooked(model)
        handle = register(lambda *_: None)
        assert is_hooked(model)
        handle.remove()
    assert not is_hooked(model)
