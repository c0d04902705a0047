"""Every registered method changes what is measured, and a new one is an object and an entry."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from oscillab import methods
from oscillab.data.options import DataOptions
from oscillab.methods import METHODS, Method, method, names, register
from oscillab.study.config import Study
from oscillab.study.grid import jobs_of
from oscillab.study.job import run_job, write_table
from oscillab.train.config import RunOptions, TrainSpec
from oscillab.train.remedies import Remedy
from oscillab.yolo import checkpoint

TRAIN = TrainSpec(epochs=4, learning_rate=1e-4, schedule="constant", warmup_steps=1)


class Shrink(Remedy):
    def after_step(self):
        for layer in self.layers:
            layer.weight.mul_(0.98)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Method -> mAP after 8 steps of every way to train, with every average and control of LSQ; and the folder."""
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("methods")
    patch.setattr(methods, "METHODS", dict(METHODS))
    patch.setitem(sys.modules, "shrink", SimpleNamespace(Shrink=Shrink))  # its file
    register(Method("shrink", "Shrink", "training", applied="shrink:Shrink"))
    data = DataOptions(size=64, count=8, held_out=8, batch_size=4)
    study = Study(out=folder, bits=("4",), train=TRAIN, ema_decay=0.6, ema_ramp=0.0, qc_learning_rate=1e-3, data=data)
    study = replace(study, run=RunOptions(progress=False), arms=names("training"), averages=())
    others = jobs_of(replace(study, arms=study.arms[1:], controls=("none",)))
    averages = tuple(name for name in names("average") if "horizon" not in METHODS[name].options)  # of a longer run
    every = {"averages": averages, "controls": ("none", *names("control"))}
    jobs = [*jobs_of(replace(study, arms=("lsq",), **every)), *others]
    for job in jobs:
        run_job(job)
    yield write_table(jobs, folder / "table.csv").set_index("method")["map"], folder, averages
    patch.undo()


@pytest.mark.slow
def test_every_method_moves_the_map(measured):
    """Oracle: the mAP of plain LSQ of the same seed for ways to train and averages, for a control that of its start.

    Soft rounding is measured with its hooks (fault 19).
    """
    scores, _, averages = measured
    pairs = [("ptq", "fp32"), ("lsq", "ptq"), *((name, "lsq") for name in (*names("training")[1:], *averages))]
    pairs += [(f"{start}+{name}", start) for name in names("control") for start in METHODS[name].starts]
    assert not [pair for pair in pairs if scores[pair[0]] == scores[pair[1]]] and scores["lsq"] > 0.01


@pytest.mark.slow
def test_a_new_remedy_is_an_object_and_an_entry(measured):
    """Oracle: its row in the table, and what it promises: weights 0.98^8 = 0.85 of what plain LSQ leaves, about."""
    scores, folder, _ = measured
    paths = (folder / f"yolov5n-4bit-constant{arm}-seed0" / "lsq.pt" for arm in ("", "-shrink"))
    plain, shrunk = (checkpoint.load(path).model[2].cv1.conv.weight.abs().mean().item() for path in paths)
    assert "shrink" in scores and shrunk / plain == pytest.approx(0.85, abs=0.01)


def test_unknown_names_and_entries(tiny):
    """Oracle: one line that lists what is registered, before anything runs; a taken name or unknown kind is refused."""
    for change, words in (
        ({"arms": ("lsqq",)}, "unknown training 'lsqq', allowed are lsq, dampening"),
        ({"averages": ("mean",)}, "unknown average 'mean', allowed are ema, "),
        ({"controls": ("none", "bn")}, "unknown control 'bn', allowed are none, qc, "),
    ):
        with pytest.raises(ValueError, match=words):
            jobs_of(tiny(**change))
    for wrong in (Method("lsq", "LSQ", "training"), Method("mine", "Mine", "magic")):
        with pytest.raises(ValueError, match="a new name and a kind of untrained, training"):
            register(wrong)
    one, other = method("first of two runs"), method("second of two runs")
    assert (one.label, one.color != other.color) == ("first of two runs", True)
    assert method("first of two runs") is one
    with pytest.raises(ValueError, match="lsq_plus is not applied by a call"):
        METHODS["lsq_plus"].apply()
