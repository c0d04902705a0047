"""The loop: what it decays, that it resumes to the same result, stops in good order, compiles."""

import copy
import csv
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from oscillab.data.batches import Batches, to_pixels
from oscillab.data.scenes import Scenes
from oscillab.quant import step_sizes
from oscillab.quant.hooks import is_hooked
from oscillab.recording.recorder import record
from oscillab.train.callbacks import LossLog, MoveEma, SaveCheckpoint, resume_from, save_checkpoint
from oscillab.train.config import TrainSpec, has_bfloat16
from oscillab.train.ema import Ema
from oscillab.train.trainer import Trainer, parameter_groups
from oscillab.yolo.loss import DetectionLoss

SPEC = TrainSpec(epochs=2, learning_rate=1e-3, schedule="constant", warmup_steps=2)


def trained(model, batches, spec=SPEC, *callbacks, loss=None):
    """The trainer of a detector, at the end of its run."""
    trainer = Trainer(model, loss or DetectionLoss(model), batches, spec, callbacks=callbacks, progress=False)
    trainer.fit()
    return trainer


def test_step_sizes_and_bn_are_not_decayed(quantized):
    """Oracle: the paper's recipe; decay on convolution weights alone, every trained parameter in one group."""
    groups = parameter_groups(quantized, 0.1)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in quantized.parameters())
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(m.weight) for m in quantized.modules() if isinstance(m, torch.nn.Conv2d)}
    assert not decayed & {id(p) for p in step_sizes(quantized).values()}


@pytest.mark.parametrize("stop_at", [3, 4, 6])
def test_resuming_gives_the_uninterrupted_result(tiny, batches, squared, same, tmp_path, stop_at):
    """Oracle: the uninterrupted run, bit for bit: weights, average, optimizer and both recordings; mid-epoch and at its end."""

    def run(name, *callbacks, resume=False):
        model, path = tiny(), tmp_path / "last.pt"
        trainer, ema = Trainer(model, squared, batches, SPEC, progress=False), Ema(model, decay=0.9, ramp=2)
        with record(model, trainer.optimizer) as live, record(ema.model, ema) as average:
            parts = {"averages": {"ema": ema}, "recorders": {"lsq": live, "ema": average}}
            if resume:
                resume_from(path, trainer, **parts)
            save = SaveCheckpoint(lambda trainer: save_checkpoint(path, trainer, **parts))
            trainer.callbacks += [MoveEma(ema), *callbacks, save]
            trainer.fit()
        for part, one in (("lsq", live), ("ema", average)):
            one.recording().save(tmp_path / name / f"{part}.npz")
        return trainer, (model, ema.model), [file.read_bytes() for file in sorted((tmp_path / name).iterdir())]

    straight, networks, recordings = run("straight")
    stopped, *_ = run("stopped", SimpleNamespace(step_end=lambda trainer: trainer.step == stop_at and trainer.stop()))
    assert stopped.interrupted and stopped.step == stop_at
    resumed, others, again = run("resumed", resume=True)
    assert resumed.step == straight.step == 8 and recordings == again
    assert all(same(*pair) for pair in zip(networks, others, strict=True))


def test_nan_loss_stops_with_the_last_good_checkpoint_kept(tiny, batches, squared, tmp_path):
    """Oracle: the file that was written before the loss broke, byte for byte, and a sentence with a remedy."""
    path, before = tmp_path / "last.pt", []

    class Poison:
        def step_end(self, trainer):
            if trainer.step == 5:
                before.append(path.read_bytes())
                next(trainer.model.parameters()).data.fill_(math.nan)

    trainer = Trainer(tiny(), squared, batches, SPEC, progress=False)
    trainer.callbacks += [Poison(), SaveCheckpoint(lambda trainer: save_checkpoint(path, trainer))]
    with pytest.raises(FloatingPointError, match="the loss became nan at step 5 of 8.*lower the learning rate"):
        trainer.fit()
    assert [path.read_bytes()] == before


def test_trains_on_batches_without_objects(detector, batches):
    """Oracle: the run ends and every parameter stays finite when no picture holds an object."""
    loss = DetectionLoss(detector)
    without = lambda outputs, targets, size, masks: loss(outputs, targets[:0], size)  # noqa: E731
    assert trained(detector, batches, loss=without).step == 8
    assert all(torch.isfinite(p).all() for p in detector.parameters())


def test_loss_falls(detector, batches, monkeypatch):
    """Oracle: optimizing lowers the loss on the very pictures that it saw."""
    loss, batch = DetectionLoss(detector), next(batches.epoch(0))
    monkeypatch.setattr(batches, "epoch", lambda index, start=0: iter(4 * [batch]))

    @torch.no_grad()
    def value():
        return loss(detector.train()(to_pixels(batch.images)), batch.targets, 64)[0].item()

    before = value()
    trained(detector, batches, TrainSpec(epochs=3, learning_rate=3e-3, warmup_steps=0))
    assert value() < 0.8 * before


def test_a_step_size_that_had_to_be_held_is_named(tiny, batches, squared, caplog):
    """Oracle: a step size that is pushed below zero by hand is held positive, and the log says which, once."""
    model = tiny()
    model[3].weight_quantizer.step_size.data.fill_(-0.1)
    Trainer(model, squared, batches, SPEC, progress=False).fit()
    warnings = [record.message for record in caplog.records if "held positive" in record.message]
    assert sum("3.weight_quantizer" in warning for warning in warnings) == 1
    assert model[3].weight_step_size() > 0


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_is_applied(tiny, batches, squared):
    """Oracle: an infinite gradient put in by hand; no weight has moved, and the sentence names the step and the rate."""
    model = tiny()
    before = copy.deepcopy(dict(model.named_parameters()))
    model[3].weight.register_hook(lambda gradient: gradient.fill_(math.inf))
    words = "the gradient became (inf|nan) at step 0 of 8.*now 0.001.*held positive: none"
    with pytest.raises(FloatingPointError, match=words):
        Trainer(model, squared, batches, SPEC, progress=False).fit()
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_official_schedules():
    """Oracle: YOLOv5's hyp.scratch-low.yaml (linear, lrf 0.01), YOLOv7's hyp.scratch.tiny.yaml and .p5.yaml (cosine, 0.01, 0.1)."""
    spec = TrainSpec(learning_rate=0.1, schedule="official", warmup_steps=0)
    found = {name: spec.for_network(name) for name in ("yolov5x-seg", "yolov7-tiny-deploy", "yolov7")}
    assert [(one.schedule, one.final_share) for one in found.values()] == [
        ("linear", 0.01),
        ("cosine", 0.01),
        ("cosine", 0.1),
    ]
    assert found["yolov5x-seg"].rate_at(50, 100) == pytest.approx(0.1 * (0.01 + 0.99 / 2))
    assert replace(spec, schedule="cosine", final_share=0.3).for_network("any").final_share == 0.3


def test_bfloat16_is_the_machines_choice(monkeypatch):
    """Oracle: the flags of two processors, as Linux lists them."""
    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    for flags, expected in (("avx2 avx512_bf16 fma", True), ("avx2 avx512f avx512_bf16x", False), ("fma", False)):
        monkeypatch.setattr(Path, "read_text", lambda path, flags=flags: f"flags : {flags}\n")
        assert has_bfloat16() is expected


def test_rates_of_the_schedules():
    """Oracle: closed forms at the ends of the warm-up, in the middle and at the end of the cosine."""
    spec = TrainSpec(learning_rate=0.1, schedule="cosine", final_share=0.0, warmup_steps=10)
    assert spec.rate_at(0, 110) == pytest.approx(0.01)
    assert spec.rate_at(9, 110) == spec.rate_at(10, 110) == pytest.approx(0.1)
    assert spec.rate_at(60, 110) == pytest.approx(0.05)
    assert spec.rate_at(110, 110) == pytest.approx(0.0, abs=1e-12)
    assert TrainSpec(learning_rate=0.1, schedule="constant", warmup_steps=0).rate_at(99, 100) == 0.1
    linear = TrainSpec(learning_rate=0.1, schedule="linear", final_share=0.01, warmup_steps=0)
    assert [linear.rate_at(step, 100) for step in (0, 50, 100)] == pytest.approx([0.1, 0.0505, 0.001])


def test_step_sizes_have_a_rate_of_their_own(tiny, batches, squared):
    """Oracle: a rate of 0 leaves every step size as it was, to the bit, and the rest trains; Adam's group says 0.1."""
    model = tiny()
    before = copy.deepcopy(dict(model.named_parameters()))
    Trainer(model, squared, batches, replace(SPEC, step_size_rate=0.0), progress=False).fit()
    still = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert still == set(step_sizes(model))
    slow = Trainer(model, squared, batches, replace(SPEC, step_size_rate=0.1), progress=False)
    slow.fit()
    assert {group["name"]: group["lr"] for group in slow.optimizer.param_groups}["step sizes"] == pytest.approx(1e-4)


def test_log_has_a_row_every_so_many_steps(quantized, batches, tmp_path):
    """Oracle: arithmetic; 8 steps, a row every 2. A run that was killed after row 6, half of row 8 and a checkpoint of step 4
    goes on after row 4."""
    path = tmp_path / "log.csv"
    trainer = trained(quantized, batches, SPEC, LossLog(path, every=2))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8]
    assert float(rows[-1]["loss"]) == pytest.approx(trainer.last_loss, rel=1e-5)
    assert {"box", "objectness", "classification"} <= set(rows[0])
    path.write_text("step,rate,loss\n2,0.1,3\n4,0.1,2\n6,0.1,1\n8,0.")
    LossLog(path, every=2, append=True).start(SimpleNamespace(step=4))
    assert path.read_text() == "step,rate,loss\n2,0.1,3\n4,0.1,2\n"


def test_resuming_another_network_says_so(tiny, batches, same, tmp_path):
    """Oracle: the sentence a user reads; no weight of the network that was given has changed."""
    trainer = saved(tmp_path / "last.pt", tiny(), batches)
    trainer.model = torch.nn.Sequential(*trainer.model, torch.nn.Linear(2, 3))
    before = copy.deepcopy(trainer.model.state_dict())
    words = r"last.pt is of another network: it lacks 2 tensors \(7.bias\); resume with the options"
    with pytest.raises(ValueError, match=words):
        resume_from(tmp_path / "last.pt", trainer)
    assert same(before, trainer.model)


def saved(path, model, batches, spec=SPEC):
    """A trainer that has not begun, and has saved its state."""
    trainer = Trainer(model, None, batches, spec, progress=False)
    save_checkpoint(path, trainer)
    return trainer


OTHERS = {
    "batch_size is 4 there, 8 here": ({}, {"batch_size": 8}, 4),
    "size is 64 there, 96 here": ({}, {"size": 96}, 4),
    "seed is 0 there, 1 here": ({}, {"seed": 1}, 4),
    "data is 16 images of scenes there, 24 images of scenes here": ({}, {"count": 24}, 4),
    "augment is .* there, .*Augment.* here": ({}, {"augment": "flip"}, 4),
    "schedule is constant there, cosine here": ({"schedule": "cosine"}, {}, 4),
    "learning_rate is 0.001 there, 0.002 here": ({"learning_rate": 0.002}, {}, 4),
    "bits is 3 layers of 4 there, 3 layers of 3 here": ({}, {}, 3),
}


@pytest.mark.parametrize("words", OTHERS)
def test_resuming_another_run_says_so(tiny, batches, same, tmp_path, words):
    """Oracle: the sentence names what differs; no weight of the network that was given has changed."""
    (spec, data, bits), path = OTHERS[words], tmp_path / "last.pt"
    saved(path, tiny(bits=4), batches)
    options = {"size": 64, "batch_size": 4} | data
    other = Batches(Scenes(options.pop("count", 16), split="train", size=64), **options)
    model = tiny(bits=bits)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=f"last.pt is of another run: .*{words}.*; resume with the options"):
        resume_from(path, Trainer(model, None, other, replace(SPEC, **spec), progress=False))
    assert same(before, model)


def test_a_longer_run_may_be_resumed_at_a_constant_rate(tiny, batches, tmp_path):
    """Oracle: the steps behind it are the same; with another schedule, whose rates hang on the end, it is refused."""
    longer, cosine = replace(SPEC, epochs=9), replace(SPEC, schedule="cosine")
    trainer = saved(tmp_path / "last.pt", tiny(), batches)
    trainer.spec = longer
    assert resume_from(tmp_path / "last.pt", trainer) == 0
    trainer = saved(tmp_path / "last.pt", tiny(), batches, cosine)
    trainer.spec = replace(cosine, epochs=9)
    with pytest.raises(ValueError, match="epochs is 2 there, 9 here"):
        resume_from(tmp_path / "last.pt", trainer)


def test_a_batch_without_statistics_says_so(detector):
    """Oracle: the sentence; the last batch of 5 images holds one, whose coarsest feature map is 1 x 1."""
    batches = Batches(Scenes(5, split="train", size=64), size=32, batch_size=4)
    trainer = Trainer(detector, DetectionLoss(detector), batches, replace(SPEC, epochs=1), progress=False)
    words = "batch norm needs more than one value .* a batch of 1 image.* of 32 pixels .* drop_last"
    with pytest.raises(ValueError, match=words):
        trainer.fit()
    assert trainer.step == len(batches) - 1


def test_an_optimizer_from_before_quantizing_is_warned_of(tiny, batches, caplog):
    """Oracle: by hand: 3 layers with 2 step sizes each are not in an optimizer made before them; no word of one made after."""
    model = tiny()
    late = Trainer(model, None, batches, SPEC, progress=False)
    early = Trainer(model, None, batches, SPEC, progress=False)
    early.optimizer = torch.optim.SGD([p for n, p in model.named_parameters() if "quantizer" not in n], lr=0.1)
    for trainer in (late, early):
        trainer.callbacks.append(SimpleNamespace(start=lambda trainer: trainer.stop()))
        trainer.fit()
    warnings = [record.message for record in caplog.records]
    assert [w.partition(" parameters")[0] for w in warnings] == ["6 of 16"] and "build it after quantize" in warnings[0]


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
    trainer = Trainer(
        model,
        squared,
        Noise(),
        replace(SPEC, epochs=1, warmup_steps=0, **spec),
        progress=False,
    )
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
