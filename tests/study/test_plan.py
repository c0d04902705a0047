"""What a plan says before anything runs, and what it finds missing."""

import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import oscillab
from oscillab.data.options import DataSource
from oscillab.study import job as state
from oscillab.study import run as plan
from oscillab.study.config import PAPER
from oscillab.study.grid import jobs_of
from oscillab.study.run import run_study
from oscillab.train.config import RunOptions


def test_counts_of_a_plan(tiny):
    """Oracle: by hand: 2 widths, 2 seeds, 2 passes of 8 pictures, QC of 1 pass, 4 measurements of 4; no folder."""
    options = tiny(bits=("4", "4*"), seeds=(0, 1), dry_run=True)
    shown = run_study(options)
    runs = "2 runs (2 planned) of 4 steps, arms lsq, constant rate, seeds 0 1"
    assert shown["jobs"] == 4 and f"yolov5n 4 bit: {runs}" in shown["text"]
    assert "yolov5n 4* bit" in shown["text"] and "in all with 1 at once" in shown["text"]
    assert not any(path.is_dir() for path in options.folder.iterdir())
    options = tiny()
    job = jobs_of(options)[0]
    assert plan.images_left(job, DataSource(options.data)) == pytest.approx(2 * 8 + 2 * 8 + 4 * 4 * plan.FORWARD_SHARE)
    state.add_row(job, {"method": "lsq"})
    (job.folder / "run.json").write_text("{}")
    assert plan.images_left(job, DataSource(options.data)) == pytest.approx(2 * 8 + 3 * 4 * plan.FORWARD_SHARE)


def coco_like(root):
    """A folder that looks like COCO 2017 with 80 classes: 2,000 empty stand-ins to train on, 100 to measure on."""
    (root / "annotations").mkdir(parents=True)
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, 81)]
    for split, count in (("train2017", 2000), ("val2017", 100)):
        folder = root / "images" / split
        folder.mkdir(parents=True)
        size = {"height": 480, "width": 640}
        images = [{"id": number, "file_name": f"{number:012d}.jpg"} | size for number in range(count)]
        for image in images:
            (folder / image["file_name"]).touch()
        shape = {"bbox": [8, 8, 90, 60], "segmentation": [[8, 8, 98, 8, 98, 68, 8, 68]]}
        objects = [{"image_id": number, "category_id": 1 + number % 80} | shape for number in range(count)]
        content = {"images": images, "annotations": objects, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def test_a_dry_run_of_the_paper_opens_each_file_once(tmp_path, monkeypatch):
    """Oracle: counted calls of `open`: two annotation files, 9 stand-in checkpoints, no picture; 32 steps a pass."""
    weights, coco, opened, read = tmp_path / "weights", coco_like(tmp_path / "coco"), Counter(), Counter()
    weights.mkdir()
    for name in PAPER.model:
        (weights / f"{name}.pt").write_bytes(name.encode())

    def inspect(path):
        read[path.name] += 1
        return SimpleNamespace(name=path.stem, classes=80, names=None, state={})

    def counted(file, *arguments, **options):
        opened[Path(file).name if isinstance(file, (str, Path)) else file] += 1
        return io_open(file, *arguments, **options)

    io_open = io.open
    monkeypatch.setattr("oscillab.yolo.checkpoint.inspect", inspect)
    monkeypatch.setattr(plan, "seconds_per_image", lambda job: 1.0)  # it needs the networks themselves
    monkeypatch.setattr("builtins.open", counted)
    monkeypatch.setattr("io.open", counted)
    data = replace(PAPER.data, data=str(coco), size=64)
    study = replace(PAPER, weights=weights, out=tmp_path / "out", data=data, run=RunOptions(), dry_run=True)
    shown = run_study(study)
    assert "CPU-hours" in shown["text"] and shown["jobs"] == 108
    assert shown["text"].count("4 runs (4 planned) of 3200 steps") == 27
    annotations = {name: count for name, count in opened.items() if str(name).endswith(".json")}
    assert annotations == {"instances_train2017.json": 1, "instances_val2017.json": 1}
    assert read == {f"{name}.pt": 1 for name in PAPER.model}


def test_too_little_disk_and_other_classes(tiny, tmp_path, monkeypatch):
    """Oracle: a disk of 1 MB against what one YOLOv5n run keeps; a detector of 3 classes on scenes, which have 10."""
    weights = oscillab.save(oscillab.build("yolov5n", classes=3), tmp_path / "three.pt", half=True)
    with pytest.raises(ValueError, match="detects 3 classes, scenes has 10"):
        run_study(tiny(weights=weights))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(ValueError, match="has 0.0 GB free, the study needs about 0.1 GB"):
        run_study(tiny())
