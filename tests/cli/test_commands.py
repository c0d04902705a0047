"""The command line as a user calls it: files that appear, tables that are printed, errors of one line."""

import io
import json
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import oscillab
from oscillab.__main__ import main
from oscillab.data.images import write_image
from oscillab.provenance import SHIPPED
from oscillab.train.trainer import Trainer

SMALL = ["--size", "64", "--count", "32", "--held-out", "8", "--batch-size", "8", "--no-progress", "--epochs", "1"]


def printed(*words):
    """First word of each line that a command prints -> the others."""
    with redirect_stdout(io.StringIO()) as text:
        assert main([*words]) == 0
    return {line.split()[0]: " ".join(line.split()[1:]) for line in text.getvalue().splitlines() if line.strip()}


@pytest.fixture(scope="module")
def end(tmp_path_factory):
    """The end of a tiny QAT run from the shipped detector, into a folder with a space in its name."""
    return printed("qat", "--out", str(tmp_path_factory.mktemp("q") / "a t"), "--bits", "3", *SMALL)


@pytest.fixture(scope="module")
def trained(end):
    return Path(end["out"])


def test_qat_writes_what_inspect_reads(trained, capsys):
    """Oracle: the help's promise of a folder; the published parameter counts; the run's own options and steps."""
    names = {path.name for path in trained.iterdir()}
    assert names == {"lsq.pt", "ema.pt", "lsq.npz", "ema.npz", "log.csv", "run.json"}
    run = json.loads((trained / "run.json").read_text())
    assert run["config"]["quant"]["bits"] == 3 and run["config"]["run"]["seed"] == 0 and run["steps"] == 4
    assert {"versions", "hardware", "seconds"} <= set(run)
    assert oscillab.Recording.open(trained / "lsq.npz")
    assert main(["models"]) == 0
    assert "yolov7-tiny         detect      6228762    13.9" in capsys.readouterr().out
    found = printed("inspect", str(SHIPPED))
    assert (found["model"], found["classes"], found["parameters"]) == ("yolov5n", "10", "1777447")
    found = printed("inspect", str(trained / "lsq.pt"))
    assert (found["quantized"], found["bits"], found["weight"]) == ("True", "3", "granularity per_tensor")
    assert printed("inspect", str(trained / "lsq.npz"))["steps"] == "4"
    found = printed("inspect", str(trained))
    assert found["ema.pt"] == "yolov5n, 10 classes, 3 bit" and found["ema.npz"].startswith("4 steps, ")


def test_a_command_ends_with_what_it_measured_and_the_next_command(trained, end):
    """Oracle: mAP by `evaluate` of the files; flips from the recording; the named commands run; a folded one's keys."""
    data = ["--held-out", "8", "--no-progress"]
    measured = {n: printed("evaluate", "--weights", str(trained / f"{n}.pt"), *data)["map"] for n in ("lsq", "ema")}
    assert end["map_float"] == printed("evaluate", "--size", "64", *data)["map"] > end["map_lsq"] == measured["lsq"]
    for name in ("lsq", "ema"):
        rate = oscillab.tables.flip_rate(oscillab.Recording.open(trained / f"{name}.npz"))
        assert float(end[f"flips_{name}"]) == pytest.approx(rate, rel=1e-3)
    program, *words = shlex.split(end["next"])
    corrected = printed(*words, *SMALL[2:])
    out, values = Path(corrected["out"]), trained / "values.json"
    assert program == "oscillab" and out == trained / "ema+qc.pt" and corrected["map_before"] == measured["ema"]
    assert corrected["map_after"] == printed("evaluate", "--weights", str(out), *data, "--json", str(values))["map"]
    assert f"{json.loads(values.read_text())['map']:.4g}" == corrected["map_after"]
    assert oscillab.load(out).state_dict().keys() == oscillab.load(trained / "ema.pt").state_dict().keys()
    exported = printed(*shlex.split(corrected["next"])[1:])
    for path in (out, values, Path(exported["out"])):
        path.unlink()


def test_interrupted_run_resumes_to_the_same_files(trained, tmp_path, monkeypatch):
    """Oracle: the uninterrupted run's weights and recordings, bit for bit."""
    step = Trainer.train_step

    def stop_at_two(self, batch):
        step(self, batch)
        if self.step == 2:
            self.stop()

    arguments = ["qat", "--weights", str(SHIPPED), "--out", str(tmp_path), "--bits", "3", *SMALL]
    monkeypatch.setattr(Trainer, "train_step", stop_at_two)
    assert main(arguments) == 130 and (tmp_path / "last.pt").is_file() and not (tmp_path / "lsq.pt").exists()
    monkeypatch.undo()
    assert main([*arguments, "--resume"]) == 0
    for method in ("lsq", "ema"):
        mine, theirs = (oscillab.load(folder / f"{method}.pt").state_dict() for folder in (tmp_path, trained))
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
        assert (tmp_path / f"{method}.npz").read_bytes() == (trained / f"{method}.npz").read_bytes()


def test_study_writes_its_table_and_report(tmp_path, capsys):
    """Oracle: the columns and methods that the issue of a study promises, FP32 once, files for every run."""
    arguments = ["study", "--out", str(tmp_path), "--jobs", "1", "--bits", "3", *SMALL]
    assert main(arguments) == 0
    table = pd.read_csv(tmp_path / "table.csv")
    columns = "network task bits ends_bits schedule steps method seed map map50 mask_map oscillating_share flip_rate"
    columns += " near_edge_share edge_flip_share step_size_spread seconds"
    assert list(table.columns) == columns.split()
    ladder = ["ptq", "lsq", "ema", "lsq+qc", "ema+qc"]
    assert list(table[table.bits == 3].method) == [*ladder, *ladder[1:]]
    assert set(table[table.method == "ema"].schedule) == {"official", "constant"}
    assert list(table[table.bits == 32].method) == ["fp32"]
    assert np.isfinite(table[["map", "map50", "seconds"]].to_numpy()).all()
    for run in ("3bit", "3bit-constant"):
        assert (tmp_path / f"yolov5n-{run}-seed0" / "ema+qc.pt").is_file()
    page = (tmp_path / "report.html").read_text()
    assert "data:image/png;base64," in page and "http" not in page.split("<body")[1].replace("https://arxiv.org", "")
    assert "lsq+qc" in capsys.readouterr().out
    (tmp_path / "report.html").unlink()
    assert main(["report", "--folder", str(tmp_path)]) == 0 and (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("name, measured", [("yolov5n-seg", "mask_map"), ("yolov7-tiny", "map")])
def test_other_detectors_take_the_whole_path(name, measured, tmp_path):
    """Oracle: each command runs as the one before names it, and mAP lies in 0..1, of masks too where there are any."""
    small = [*SMALL[:2], "--count", "8", "--held-out", "4", "--batch-size", "4", *SMALL[-3:]]
    out = str(tmp_path / "float.pt")
    end = printed("pretrain", "--model", name, "--out", out, *small, "--no-autocast")
    assert 0 <= float(end["map"]) <= 1
    end = printed(*shlex.split(end["next"])[1:], "--out", str(tmp_path / "qat"), *small[2:])
    end = printed(*shlex.split(end["next"])[1:], *small[2:])
    assert 0 <= float(printed("evaluate", "--weights", end["out"], "--held-out", "4", "--no-progress")[measured]) <= 1


def test_a_finished_run_is_not_written_into_unasked(trained, tmp_path, capsys):
    """Oracle: the folder's bytes; with --overwrite what was derived from the older run goes, too, and nothing else."""
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    arguments = ["qat", "--out", str(trained), "--bits", "3", *SMALL]
    assert main(arguments) == 2 and "of an earlier run: give another --out, or --overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before
    derived, others = ("ema+qc.pt", "lsq+qc.onnx", "report.html"), ("my.npz", "emails.pt", "notes.txt")
    for name, content in (before | dict.fromkeys((*derived, *others), b"older")).items():
        (tmp_path / name).write_bytes(content)
    assert main(["qat", "--out", str(tmp_path), "--bits", "4", *SMALL, "--overwrite", "--no-measure"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {*before, *others}
    assert (tmp_path / "lsq.pt").read_bytes() != before["lsq.pt"]


class Evil:
    def __reduce__(self):
        return print, ("this must never be printed",)


WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
PREDICT = ["predict", "{shipped}", "--out", "{out}"]


@pytest.mark.parametrize("arguments, sentence", [
    (["qat", "--weights", "{shipped}", "--bits", "1"], "bits must be 2..8, got 1"),
    (["qat", "--weights", "missing.pt"], "missing.pt"),
    (["qat", "--weights", "{trained}/lsq.pt"], "already quantized"),
    (["qat", "--data", "nowhere"], "no data set 'nowhere'"),
    (["evaluate", "--weights", "{foreign}"], "print"),
    (["study", "--seeds", "1", "1"], "each seed may be given once, got 1 1"),
    (["study", "--model", "yolov8n"], "unknown model 'yolov8n', allowed are yolov5n"),
    (["correct", "--weights", "{shipped}"], "is a float network: QC corrects a quantized one"),
    (["correct", "--weights", "{out}/nowhere.onnx"], "is opened with oscillab.load_onnx(path)"),
    (["evaluate", "--weights", "{trained}"], "is a folder; give a checkpoint in it"),
    (["evaluate", "--weights", "{out}/nowhere.onnx"], "nowhere.onnx: no such file"),
    pytest.param(["evaluate", "--device", "cuda"], "needs a GPU that this torch can use", marks=WITHOUT_GPU),
    (["report", "--folder", "nowhere"], "there is no nowhere"),
    (["inspect", "{out}"], "holds no checkpoint and no recording"),
    (["export", "{shipped}", "{out}/a.pt"], "the file to write must end in .onnx"),
    (["export", "{out}", "{out}/a.onnx"], "holds none of ema+qc.pt, ema.pt, lsq+qc.pt, lsq.pt"),
    (PREDICT, "predict needs at least one image"),
    ([*PREDICT, "{out}/nowhere.png"], "nowhere.png: no such image"),
    ([*PREDICT, "{foreign}"], "foreign.pt cannot be read as an image"),
    ([*PREDICT, "{image}", "{image}"], "two images are called 'image.png'"),
    ([*PREDICT, "{trained}"], "no image in this folder"),
    ([*PREDICT, "{image}", "--size", "100"], "multiples of 32, got (1, 3, 100, 100)"),
])  # fmt: skip
def test_bad_input_is_one_line(arguments, sentence, trained, tmp_path, capsys, caplog):
    """Oracle: exit status 2 and one line that names what was wrong, for each bad input a user can give; no file."""
    image, evil, out = tmp_path / "image.png", tmp_path / "foreign.pt", tmp_path / "out"
    out.mkdir()
    write_image(np.zeros((64, 64, 3), np.uint8), image)
    torch.save({"model": Evil()}, evil, pickle_protocol=2)
    places = {"shipped": SHIPPED, "trained": trained, "foreign": evil, "out": out, "image": image}
    command = [word.format(**places) for word in arguments]
    command += ["--out", str(out / "new")] if command[0] in ("qat", "study", "pretrain", "correct") else []
    assert main(command) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("error: ") and sentence in message and "must never be printed" not in message
    assert not list(out.rglob("*.*"))
