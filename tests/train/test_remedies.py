"""The tables: every entry runs in the one Trainer, leaves a plain model behind, and can be told apart from the baseline."""

import copy
import sys
from types import SimpleNamespace

import pytest
import torch

from oscillab import methods
from oscillab.quant import QuantSpec
from oscillab.train.callbacks import MoveEma, resume_from, save_checkpoint
from oscillab.train.config import TrainSpec
from oscillab.train.ema import Ema
from oscillab.train.remedies import Remedy
from oscillab.train.remedies.controls import pixels
from oscillab.train.run import QatConfig, apply_remedy, run_qat
from oscillab.train.trainer import Trainer
from oscillab.yolo import checkpoint
from oscillab.yolo.loss import DetectionLoss

SPEC = TrainSpec(epochs=1, learning_rate=5e-3, schedule="constant", warmup_steps=0)
EAGER = {  # four steps are few: begin at once
    "dampening": {"begin": 0.0, "weight": 10.0},
    "freezing": {"begin": 0.0, "momentum": 0.5},
    "scale_freezing": {"begin": 0.0},
    "q_ema": {"decay": 0.9},
}
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def trained(model, batches, name, **options):
    """(trainer, remedy, average) after one pass with the remedy of that name, an average beside it."""
    trainer = Trainer(model, DetectionLoss(model), batches, SPEC, progress=False)
    with apply_remedy(trainer, name, **options) as remedy:
        ema = Ema(model, decay=0.5)
        trainer.callbacks.append(MoveEma(ema))
        trainer.fit()
    return trainer, remedy, ema


def test_every_remedy_is_one_more_turn_of_a_loop(quantized, batches, tmp_path):
    """Oracle: invariants; "none" is training as ever, bit for bit, each other entry is not; every result, and its
    average, goes through a file of a plain model with the same output."""
    plain, keys = copy.deepcopy(quantized), list(quantized.state_dict())
    Trainer(plain, DetectionLoss(plain), batches, SPEC, progress=False).fit()
    results = {}
    for name in ("none", *methods.remedies()):
        model = copy.deepcopy(quantized)
        trainer, remedy, ema = trained(model, batches, name, **EAGER.get(name, {}))
        assert not trainer.optimizer._optimizer_step_post_hooks and remedy.step_count == 4
        results[name] = torch.cat([p.detach().flatten() for p in model.parameters()])
        for network in (model, ema.model):
            with torch.no_grad():
                expected = network(IMAGES)
                plain_form = remedy.finalize(copy.deepcopy(network))
                assert list(plain_form.state_dict()) == keys
                checkpoint.save(plain_form, tmp_path / "plain.pt")
                assert torch.equal(checkpoint.load(tmp_path / "plain.pt")(IMAGES), expected), name
    assert torch.equal(results["none"], torch.cat([p.detach().flatten() for p in plain.parameters()]))
    assert all(torch.equal(results["none"], result) == (name == "none") for name, result in results.items())


@pytest.mark.parametrize("name", methods.remedies())
def test_resumes_through_the_runs_own_files(quantized, batches, tmp_path, name):
    """Oracle: the uninterrupted run, bit for bit, stopped after step 3 of 4; the remedy travels with the rest."""

    def run(model, *, until=4, resume=None):
        trainer = Trainer(model, DetectionLoss(model), batches, SPEC, progress=False)
        with apply_remedy(trainer, name, **EAGER.get(name, {})) as remedy:
            ema = Ema(model, decay=0.5)
            if resume:
                resume_from(resume, trainer, averages={"ema": ema}, remedies={name: remedy})
            trainer.callbacks += [MoveEma(ema), Stop(until)]
            trainer.fit()
        save_checkpoint(tmp_path / "last.pt", trainer, averages={"ema": ema}, remedies={name: remedy})
        return model

    straight = run(copy.deepcopy(quantized))
    run(copy.deepcopy(quantized), until=3)
    resumed = run(copy.deepcopy(quantized), resume=tmp_path / "last.pt")
    assert all(
        torch.equal(a, b) for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


class Stop:
    """Stops the run after a step."""

    def __init__(self, step):
        self.step = step

    def step_end(self, trainer):
        if trainer.step == self.step:
            trainer.stop()


def test_every_control_is_one_more_turn_of_a_loop(quantized, batches):
    """Oracle: invariants; the modules and keys of the model before, its integer states, and other outputs."""
    keys, modules = list(quantized.state_dict()), [type(module) for module in quantized.modules()]
    with torch.no_grad():
        before = quantized(IMAGES)
    spec = TrainSpec(learning_rate=3e-3, warmup_steps=0)
    for name in methods.names("control"):
        control = methods.method(name)
        model = control.apply(copy.deepcopy(quantized), batches, spec=spec, progress=False)
        assert list(model.state_dict()) == keys and [type(module) for module in model.modules()] == modules, name
        pairs = zip(model.modules(), quantized.modules(), strict=True)
        layers = [(a, b) for a, b in pairs if hasattr(a, "integer_state")]
        assert len(layers) == 60 and all(torch.equal(a.integer_state(), b.integer_state()) for a, b in layers), name
        with torch.no_grad():
            assert not torch.equal(model(IMAGES), before), name


def test_averages_and_quantizers_are_options_of_their_classes():
    """Oracle: the classes' own checks; and no two entries of a table are the same."""
    model = torch.nn.Linear(2, 2)
    averages = [frozenset(methods.method(name).apply(model, 100).parts) for name in methods.names("average")]
    quant = [methods.method(name).quant for name in methods.names("training")]
    specs = [QuantSpec(**fields) for fields in quant if fields]
    assert len(set(averages)) == len(averages) == 4 and len({QuantSpec(), *specs}) == len(specs) + 1


def test_pixels_go_on_to_the_next_epoch(detector, batches):
    """Oracle: arithmetic; six batches of a data set of four are its four and the first two of the next pass."""
    given = list(pixels(detector, batches, 6))
    assert len(given) == 6 and all(batch.shape == (4, 3, 64, 64) for batch in given)
    expected = next(batches.epoch(1)).images.float() / 255
    torch.testing.assert_close(given[4], expected)


class Clamp(Remedy):
    """Holds every weight within a limit."""

    def __init__(self, *arguments, limit=1.0):
        super().__init__(*arguments)
        self.limit = limit

    def after_step(self):
        for layer in self.layers:
            layer.weight.clamp_(-self.limit, self.limit)


def test_a_new_remedy_is_one_file_and_one_entry(quantized, batches, tmp_path, monkeypatch):
    """Oracle: what the new remedy promises, through a whole run and the file that it writes."""
    monkeypatch.setitem(sys.modules, "clamp", SimpleNamespace(Clamp=Clamp))  # its file
    monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
    methods.register(methods.Method("clamp", "Clamp", "training", applied="clamp:Clamp", options={"limit": 0.05}))
    run_qat(quantized, batches, QatConfig(train=SPEC, remedy="clamp"), tmp_path, progress=False)
    weights = [
        module.weight for module in checkpoint.load(tmp_path / "lsq.pt").modules() if hasattr(module, "integer_state")
    ]
    assert len(weights) == 60 and max(float(weight.detach().abs().max()) for weight in weights) == pytest.approx(0.05)
