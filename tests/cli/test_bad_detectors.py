"""What a user may give wrongly to a detector's commands: files of other networks, other classes, no masks, odd sizes.

Oracle: exit status 2 and one line that names the file, the key or the number, and the remedy.
"""

import sys
import types

import pytest
import torch
from torch import nn

import oscillab
from oscillab.__main__ import main
from oscillab.data.dataset import CocoFolder
from oscillab.data.scenes import Scenes
from oscillab.provenance import SHIPPED


def head(levels):
    head = nn.Module()
    if levels:
        head.register_buffer("anchors", torch.ones(levels, 3, 2))
        head.m = nn.ModuleList(nn.Conv2d(8, 255, 1) for _ in range(levels))
    else:
        head.linear = nn.Linear(16, 80)
    return head


OTHERS = {  # class as in official files, its head, strides, what is said
    "models.yolo.Model": (head(4), [8.0, 16.0, 32.0, 64.0], "holds a P6 network, with a fourth level"),
    "ultralytics.nn.tasks.DetectionModel": (nn.Identity(), [8.0, 16.0, 32.0], "of the ultralytics package (YOLOv8"),
    "models.yolo.ClassificationModel": (head(0), [1.0], "holds a classification network, which predicts no"),
}


@pytest.mark.parametrize("dotted", OTHERS)
def test_networks_outside_the_zoo_are_refused_by_name(dotted, monkeypatch, tmp_path, capsys):
    """Oracle: see above; `inspect` says the same of the file, and does not fail, as that is what it is for."""
    last, stride, words = OTHERS[dotted]
    module, name = dotted.rsplit(".", 1)
    for length in range(1, len(module.split(".")) + 1):
        part = ".".join(module.split(".")[:length])
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    kind = type(name, (nn.Module,), {"__module__": module})
    setattr(sys.modules[module], name, kind)
    network, path, out = kind(), tmp_path / "other.pt", ["--out", str(tmp_path / "out")]
    network.model = nn.Sequential(nn.Conv2d(3, 16, 3), last)
    network.nc, network.stride, network.names = 80, torch.tensor(stride), [str(index) for index in range(80)]
    torch.save({"epoch": -1, "model": network.half(), "ema": None}, path)
    pretrain = ["pretrain", "--count", "8", *out, "--start"]
    for command in (["evaluate", "--weights"], ["qat", *out, "--weights"], pretrain):
        assert main([*command, str(path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {path}: ") and words in line and "Give a checkpoint of one of yolov5n, " in line
    assert main(["inspect", str(path)]) == 0
    assert words.split("which")[0].removeprefix("holds ") in capsys.readouterr().out


def folder(root, masks=False):
    for split in ("train", "val"):
        CocoFolder.write(Scenes(2, split=split, size=64, masks=masks), root / "folder", split)
    return str(root / "folder")


@pytest.mark.parametrize("command", ["qat", "pretrain"])
def test_masks_missing_for_a_network_that_segments(command, tmp_path, capsys):
    """Oracle: see above, before anything is trained; boxes, and masks where the file has them, can be measured."""
    weights = str(oscillab.save(oscillab.build("yolov5n-seg", classes=10), tmp_path / "seg.pt", half=True))
    network = ["--weights", weights] if command == "qat" else ["--model", "yolov5n-seg"]
    size = ["--data", folder(tmp_path), "--size", "64", "--no-progress"]
    assert main([command, *network, *size, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "instances_train.json: " in line and "objects have no 'segmentation', the first in image 0: give" in line
    for masks in (False, True) if command == "qat" else ():
        assert main(["evaluate", "--weights", weights, "--data", folder(tmp_path, masks), "--size", "64"]) == 0
        shown = capsys.readouterr().out
        assert "map" in shown and ("mask_map50" in shown) is masks


@pytest.mark.parametrize("command", ["qat", "correct", "evaluate"])
def test_classes_and_sizes_that_do_not_fit(command, tmp_path, capsys):
    """Oracle: the line names both counts, both sides, and what to do; the number given and the stride."""
    weights = oscillab.save(oscillab.build("yolov5n", classes=3), tmp_path / "three.pt", half=True)
    out = [] if command == "evaluate" else ["--out", str(tmp_path / "out")]
    assert main([command, "--weights", str(weights), "--data", folder(tmp_path), "--size", "64", *out]) == 2
    words = f"error: {weights} detects 3 classes, folder has 10: take a checkpoint that was trained for this data, or"
    assert capsys.readouterr().err == f"{words} `oscillab pretrain` one\n"
    assert main([command, "--weights", str(SHIPPED), "--size", "100", *out]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "size must be a multiple of" in line and "32" in line and "got 100" in line
