"""A compiled run against the same run without: the numbers, and who still sees the forward pass."""

import copy
import shutil
from types import SimpleNamespace

import pytest
import torch

from oscillab.recording.recorder import record
from oscillab.train.config import TrainSpec
from oscillab.train.trainer import Trainer, is_hooked

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


def squared_error(outputs, targets, image_size, *, masks=None):
    error = (outputs - targets).square().mean()
    return error, {"error": error.detach()}


def run(model, monkeypatch, **spec):
    """The trainer, the steps in which the compiled network ran, and a recording that saw ranges at every other one."""
    trainer = Trainer(model, squared_error, Noise(), TrainSpec(**SPEC, **spec), progress=False)
    steps, compiler = [], torch.compile

    def counting(network):
        compiled = compiler(network)
        return lambda images: steps.append(trainer.step) or compiled(images)

    monkeypatch.setattr(torch, "compile", counting)
    with record(model, trainer.optimizer, ranges_every=2) as recorder:
        trainer.fit()
    monkeypatch.undo()
    return trainer, steps, recorder.recording()


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.slow
def test_compiled_training_agrees(tiny, monkeypatch):
    """Oracle: the run without compiling. 1e-3 allows for fused float32 arithmetic on six steps; steps whose ranges are
    recorded run without, and the ranges are those of the other run."""
    plain, compiled = tiny(bits=8), copy.deepcopy(tiny(bits=8))
    one, steps, recording = run(plain, monkeypatch)
    assert not steps
    two, steps, other = run(compiled, monkeypatch, compile=True)
    assert steps == [0, 2, 4]
    assert two.last_loss == pytest.approx(one.last_loss, rel=1e-3)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], tensor, rtol=1e-2, atol=1e-3)
    for row in ("observed_low", "observed_high"):
        torch.testing.assert_close(
            torch.from_numpy(other[row]), torch.from_numpy(recording[row]), rtol=1e-2, atol=1e-2, equal_nan=True
        )


def test_hooks_are_seen(tiny):
    """Oracle: by hand; a hook of one module, one of all modules, and none."""
    model = tiny()
    assert not is_hooked(model)
    handle = model[3].register_forward_pre_hook(lambda *_: None)
    assert is_hooked(model)
    handle.remove()
    handle = torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: None)
    assert is_hooked(model)
    handle.remove()
    assert not is_hooked(model)
