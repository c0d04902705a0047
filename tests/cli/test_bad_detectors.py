"""What a user may give wrongly to a detector's commands: files of other networks, other classes, no masks, odd sizes.

Oracle: exit status 2 and one line that names the file, the key or the number, and the remedy.
"""

import json
import sys
import types

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import oscillab
from oscillab.__main__ import main


@pytest.fixture
def pickled(monkeypatch, tmp_path):
    """A function(dotted name, head, stride) that saves a network as an object of that class, as official files are."""

    def save(dotted, head, stride):
        module, name = dotted.rsplit(".", 1)
        for length in range(1, len(module.split(".")) + 1):
            part = ".".join(module.split(".")[:length])
            monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
        kind = type(name, (nn.Module,), {"__module__": module})
        setattr(sys.modules[module], name, kind)
        network = kind()
        network.model = nn.Sequential(nn.Conv2d(3, 16, 3), head)
        network.nc, network.stride, network.names = 80, torch.tensor(stride), [str(index) for index in range(80)]
        torch.save({"epoch": -1, "model": network.half(), "ema": None}, tmp_path / "other.pt")
        return tmp_path / "other.pt"

    return save


def four_levels():
    """A head with the anchors of four levels."""
    head = nn.Module()
    head.register_buffer("anchors", torch.ones(4, 3, 2))
    head.m = nn.ModuleList(nn.Conv2d(8, 255, 1) for _ in range(4))
    return head


def classifier():
    """A head that predicts classes alone."""
    head = nn.Module()
    head.linear = nn.Linear(16, 80)
    return head


OTHERS = {
    "P6": ("models.yolo.Model", four_levels, [8.0, 16.0, 32.0, 64.0], "holds a P6 network, with a fourth level"),
    "YOLOv8": (
        "ultralytics.nn.tasks.DetectionModel",
        nn.Identity,
        [8.0, 16.0, 32.0],
        "of the ultralytics package (YOLOv8",
    ),
    "class": (
        "models.yolo.ClassificationModel",
        classifier,
        [1.0],
        "holds a classification network, which predicts no",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_networks_outside_the_zoo_are_refused_by_name(kind, pickled, tmp_path, capsys):
    """Oracle: see above; `inspect` says the same of the file, and does not fail, as that is what it is for."""
    dotted, head, stride, words = OTHERS[kind]
    path = pickled(dotted, head(), stride)
    out = ["--out", str(tmp_path / "out")]
    for command in (
        ["evaluate", "--weights"],
        ["qat", *out, "--weights"],
        ["pretrain", "--count", "8", *out, "--start"],
    ):
        assert main([*command, str(path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert (
            line.startswith(f"error: {path}: ") and words in line and ". Give a checkpoint of one of yolov5n, " in line
        )
    assert main(["inspect", str(path)]) == 0
    assert words.split("which")[0].removeprefix("holds ") in capsys.readouterr().out


@pytest.fixture
def folder(tmp_path):
    """A function(masks) that writes a COCO folder of two pictures and ten classes, with or without segmentations."""

    def write(masks):
        root = tmp_path / "folder"
        box = {"category_id": 1, "bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0}
        polygon = {"segmentation": [[8, 8, 28, 8, 28, 28, 8, 28]]} if masks else {}
        for split in ("train2017", "val2017"):
            (root / "images" / split).mkdir(parents=True)
            (root / "annotations").mkdir(exist_ok=True)
            images = [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 64} for n in range(2)]
            for image in images:
                cv2.imwrite(str(root / "images" / split / image["file_name"]), np.full((64, 64, 3), 90, np.uint8))
            content = {
                "images": images,
                "annotations": [box | polygon | {"id": n + 1, "image_id": n} for n in range(2)],
                "categories": [{"id": n + 1, "name": f"class {n}"} for n in range(10)],
            }
            (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        return root

    return write


@pytest.mark.parametrize("command", ["qat", "pretrain"])
def test_masks_missing_for_a_network_that_segments(command, folder, tmp_path, capsys):
    """Oracle: see above, before anything is trained; its boxes can be measured all the same."""
    root = folder(masks=False)
    weights = oscillab.save(oscillab.build("yolov5n-seg", classes=10), tmp_path / "seg.pt", half=True)
    network = ["--weights", str(weights)] if command == "qat" else ["--model", "yolov5n-seg"]
    size = ["--data", str(root), "--size", "64", "--no-progress"]
    assert main([command, *network, *size, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "instances_train2017.json: 2 objects have no 'segmentation', the first in image 0: give annotations" in line
    assert main(["evaluate", "--weights", str(weights), *size]) == 0
    shown = capsys.readouterr().out
    assert "map" in shown and "mask_map" not in shown


def test_masks_of_a_folder_are_measured(folder, tmp_path, capsys):
    """Oracle: the rows that a network that segments adds, from the segmentations in the file."""
    weights = oscillab.save(oscillab.build("yolov5n-seg", classes=10), tmp_path / "seg.pt", half=True)
    assert main(["evaluate", "--weights", str(weights), "--data", str(folder(masks=True)), "--size", "64"]) == 0
    assert "mask_map50" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["qat", "correct", "evaluate"])
def test_a_class_count_that_differs_from_the_datas(command, folder, tmp_path, capsys):
    """Oracle: the line names both counts, both sides, and what to do."""
    weights = oscillab.save(oscillab.build("yolov5n", classes=3), tmp_path / "three.pt", half=True)
    words = [command, "--weights", str(weights), "--data", str(folder(masks=True)), "--size", "64"]
    assert main([*words, *(["--out", str(tmp_path / "out")] if command != "evaluate" else [])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: {weights} detects 3 classes, folder has 10: take a checkpoint that was trained for this data, "
        "or `oscillab pretrain` one"
    )


@pytest.mark.parametrize("command", ["pretrain", "qat", "evaluate"])
def test_a_size_that_is_no_multiple_of_the_stride(command, tmp_path, capsys):
    """Oracle: the number given and the stride."""
    out = [] if command == "evaluate" else ["--out", str(tmp_path / "out")]
    assert main([command, "--size", "100", *out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "size must be a multiple of" in line and "32" in line and "got 100" in line
