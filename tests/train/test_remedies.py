"""What all remedies share, and the tables: every entry runs in the one Trainer and leaves a plain model behind."""

import copy
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from oscillab import methods
from oscillab.quant import QuantSpec, quant_layers
from oscillab.train.callbacks import MoveEma, resume_from, save_checkpoint
from oscillab.train.config import TrainSpec
from oscillab.train.ema import Ema
from oscillab.train.remedies import Remedy, cosine_between
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
def test_resumes_through_the_runs_own_files(quantized, batches, same, tmp_path, name):
    """Oracle: the uninterrupted run, bit for bit, stopped after step 3 of 4; the remedy travels with the rest."""

    def run(model, *, until=4, resume=None):
        trainer = Trainer(model, DetectionLoss(model), batches, SPEC, progress=False)
        with apply_remedy(trainer, name, **EAGER.get(name, {})) as remedy:
            ema = Ema(model, decay=0.5)
            if resume:
                resume_from(resume, trainer, averages={"ema": ema}, remedies={name: remedy})
            stop = SimpleNamespace(step_end=lambda trainer: trainer.step == until and trainer.stop())
            trainer.callbacks += [MoveEma(ema), stop]
            trainer.fit()
        save_checkpoint(tmp_path / "last.pt", trainer, averages={"ema": ema}, remedies={name: remedy})
        return model

    straight = run(copy.deepcopy(quantized))
    run(copy.deepcopy(quantized), until=3)
    assert same(straight, run(copy.deepcopy(quantized), resume=tmp_path / "last.pt"))


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
        pairs = list(zip(quant_layers(model).values(), quant_layers(quantized).values(), strict=True))
        assert len(pairs) == 60 and all(torch.equal(a.integer_state(), b.integer_state()) for a, b in pairs), name
        with torch.no_grad():
            assert not torch.equal(model(IMAGES), before), name


def test_averages_and_quantizers_are_options_of_their_classes():
    """Oracle: the classes' own checks; and no two entries of a table are the same."""
    model = torch.nn.Linear(2, 2)
    averages = [methods.method(name).apply(model, 1000) for name in methods.names("average")]
    kinds = {(frozenset(one.parts), one.decay) for one in averages}
    quant = [methods.method(name).quant for name in methods.names("training")]
    specs = [QuantSpec(**fields) for fields in quant if fields]
    assert len(kinds) == len(averages) - 1 == 8  # "ema" is "ema_25" by default
    assert len({QuantSpec(), *specs}) == len(specs) + 1


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
    network = checkpoint.load(tmp_path / "lsq.pt")
    largest = [float(layer.weight.detach().abs().max()) for layer in quant_layers(network).values()]
    assert len(largest) == 60 and max(largest) == pytest.approx(0.05)


class Noting(Remedy):
    """Notes its moments."""

    def __init__(self, *arguments, notes):
        self.notes = notes
        super().__init__(*arguments)

    def before_step(self):
        self.notes.append("before")

    def after_step(self):
        self.notes.append(f"after {self.step_count}")


def test_acts_ahead_of_hooks_that_were_there_before(tiny, train_tiny):
    """Oracle: the order by hand; a recorder that was attached first still sees what the remedy left. After the block
    nothing is called; the model, a copy of which an average makes, never knows of remedy and optimizer."""
    model, notes = tiny(), []
    held = [set(vars(module)) for module in model.modules()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    handle = optimizer.register_step_post_hook(lambda *_: notes.append("recorder"))
    with Noting(model, SimpleNamespace(optimizer=optimizer), 4, notes=notes) as remedy:  # as in accelerate's wrapper
        train_tiny(model, optimizer, 2)
        assert notes == ["before", "after 1", "recorder", "before", "after 2", "recorder"] and remedy.share == 0.5
        assert [set(vars(module)) for module in model.modules()] == held and copy.deepcopy(model)
    handle.remove()
    train_tiny(model, optimizer, 1)
    assert len(notes) == 6 and not (optimizer._optimizer_step_post_hooks or optimizer._optimizer_step_pre_hooks)


def test_a_step_that_a_scaler_skipped_is_none(tiny):
    """Oracle: by hand: of 4 steps 2 have an infinite loss, and a fused optimizer is called, but moves nothing."""
    model, notes = tiny().train(), []
    optimizer, scaler = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True), torch.amp.GradScaler("cpu")
    with Noting(model, optimizer, 4, notes=notes) as remedy:
        for step in range(4):
            optimizer.zero_grad()
            factor = float("inf") if step % 2 else 1.0
            scaler.scale(model(torch.rand(2, 3, 10, 10)).square().mean() * factor).backward()
            scaler.step(optimizer)
            scaler.update()
    assert remedy.step_count == 2 and [note for note in notes if note != "before"] == ["after 1", "after 2"]


def test_the_published_cosine():
    """Oracle: the published code's end + (start - end) (1 + cos(pi * relative)) / 2 after a constant first quarter, which is
    the start to the last digit; the end stays beyond the run."""
    for share in (0.3, 0.5, 0.9):
        expected = 0.01 + 0.5 * (0.04 - 0.01) * (1 + math.cos(math.pi * (share - 0.25) / 0.75))
        assert cosine_between(0.04, 0.01, share) == pytest.approx(expected, rel=1e-12)
    assert [cosine_between(0.0, 3.0, share) for share in (0.0, 0.1, 0.25)] == [0.0, 0.0, 0.0]
    assert cosine_between(0.0, 3.0, 1.0) == cosine_between(0.0, 3.0, 1.5) == pytest.approx(3.0, rel=1e-12)
