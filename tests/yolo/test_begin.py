"""What pretraining begins with: tensors counted by hand, the loss's own matching, and what is said about it."""

import json
import logging

import numpy as np
import pytest
import torch

import oscillab
from oscillab.__main__ import main
from oscillab.data.folder import write_folder
from oscillab.data.scenes import Scenes
from oscillab.provenance import SHIPPED
from oscillab.yolo import zoo
from oscillab.yolo.begin import auto_anchor, load_matching_weights
from oscillab.yolo.fuse import fuse
from oscillab.yolo.loss import DetectionLoss, build_loss


class Boxes:
    """A data set of one box a picture, of given (width, height) in pictures of 640 pixels."""

    def __init__(self, *sizes):
        self.sizes = sizes

    def ground_truth(self):
        images = [{"id": index, "width": 640, "height": 320} for index in range(len(self.sizes))]
        rows = [{"image_id": index, "bbox": [0, 0, *size]} for index, size in enumerate(self.sizes)]
        return {"images": images, "annotations": rows}


def test_a_segmenting_network_takes_the_detectors_backbone_and_neck(caplog):
    """Oracle: by hand: all 343 tensors of rows 0 to 23 and the anchors, but none of the head's convolutions."""
    torch.manual_seed(0)
    model, source = zoo.build("yolov5n-seg", 10), oscillab.load(SHIPPED)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with caplog.at_level(logging.INFO, "oscillab.yolo.begin"):
        assert load_matching_weights(model, SHIPPED) == 343
    assert "took 343 of 367 tensors of yolov5n-seg" in caplog.text and "the others start at random" in caplog.text
    given = source.state_dict()
    for key, value in model.state_dict().items():
        taken = not key.startswith(("model.24.m.", "model.24.proto."))
        assert torch.equal(value, given[key] if taken else before[key])


def test_what_cannot_be_a_start_is_refused(tmp_path):
    """Oracle: the one-line messages: quantized, fused, and a network without a tensor in common."""
    model = oscillab.load(SHIPPED)
    fused = oscillab.save(fuse(model), tmp_path / "fused.pt")
    quantized = oscillab.quantize(oscillab.load(SHIPPED), oscillab.QuantSpec(bits=4), [torch.rand(1, 3, 64, 64)])
    oscillab.save(quantized, tmp_path / "quantized.pt")
    for path, kind in ((fused, "fused"), (tmp_path / "quantized.pt", "quantized")):
        with pytest.raises(ValueError, match=rf"{path.name} is {kind}.*; start from a float checkpoint"):
            load_matching_weights(zoo.build("yolov5n", 10), path)
    with pytest.raises(ValueError, match="no tensor of yolov5n has the name and shape of one of Linear's"):
        other = torch.nn.Linear(2, 2)
        other.name = "Linear"
        load_matching_weights(other, SHIPPED)


def test_anchors_that_suit_are_kept(caplog):
    """Oracle: the recorded best possible recall of scenes, 1, found by the loss's own matching; the log says so."""
    model, dataset = zoo.build("yolov5n", 10), Scenes(64, split="train")
    before = model.anchors.clone()
    with caplog.at_level(logging.INFO, "oscillab.yolo.begin"):
        assert auto_anchor(model, dataset, 160, choice="auto") == 1
    assert "kept, they can answer for 100.0 % of the boxes at 160 pixels" in caplog.text
    assert torch.equal(model.anchors, before)


@pytest.mark.parametrize("name", ["yolov5n", "yolov7-tiny"])
def test_anchors_that_do_not_suit_change_only_where_asked(name, caplog):
    """Oracle: by hand: of boxes of 2 to 4 pixels the smallest anchor (10, 13) reaches those with both sides above 3.25;
    afterwards the loss matches every box, on a grid of 80 cells."""
    generator = np.random.default_rng(0)
    sizes = generator.uniform(2, 4, (200, 2))
    model = zoo.build(name, 10)
    before = model.anchors.clone()
    expected = float(((sizes[:, 0] > 2.5) & (sizes[:, 1] > 3.25)).mean())
    assert auto_anchor(model, Boxes(*sizes.tolist()), 640) == pytest.approx(expected)
    assert "--anchors auto fits others to this data" in caplog.text and f"{100 * expected:.1f} %" in caplog.text
    assert torch.equal(model.anchors, before)
    assert auto_anchor(model, Boxes(*sizes.tolist()), 640, choice="auto") == 1
    assert "others, fitted to this data, took their place and reach 100.0 %" in caplog.text
    assert (model.anchors[0] < 5).all() and torch.equal(model.anchors.half().float(), model.anchors)
    loss = build_loss(model)
    targets = torch.cat((torch.zeros(200, 2), torch.full((200, 2), 0.5), torch.from_numpy(sizes).float() / 640), 1)
    outputs = [torch.zeros(1, 3, 640 // s, 640 // s, 15) for s in (8, 16, 32)]
    answered = torch.cat([level.target for level in DetectionLoss.assign(loss, outputs, targets)])
    assert len(answered.unique()) == 200


def test_the_choice_is_checked():
    """Oracle: the message."""
    with pytest.raises(ValueError, match="anchors must be keep or auto, got best"):
        auto_anchor(zoo.build("yolov5n", 1), Boxes((10, 10)), 160, choice="best")


@pytest.mark.parametrize("choice", ["keep", "auto"])
def test_pretrain_offers_anchors_and_never_changes_them_unasked(choice, tmp_path, caplog):
    """Oracle: pictures shown so small that the anchors reach too few boxes: the written file's anchors are the model's
    own unless asked for otherwise; either way it is said, and the recall is in the json."""
    for split, count in (("train", 24), ("val", 4)):
        write_folder(Scenes(count, split=split, size=64), tmp_path / "mine", f"{split}2017")
    out = tmp_path / "float.pt"
    data = ["--data", str(tmp_path / "mine"), "--size", "32", "--batch-size", "8", "--augment", "none"]
    run = ["--epochs", "1", "--no-progress", "--no-autocast", "--out", str(out)]
    assert main(["pretrain", "--anchors", choice, "--start", str(SHIPPED), *data, *run]) == 0
    found, own = oscillab.load(out).anchors, zoo.build("yolov5n", 10).anchors
    assert torch.equal(found, own) == (choice == "keep")
    assert ("--anchors auto fits others" if choice == "keep" else "took their place") in caplog.text
    written = json.loads(out.with_suffix(".json").read_text())
    assert (written["anchor_recall"] <= 0.98) == (choice == "keep")
    assert (written["tensors_taken"], written["config"]["anchors"]) == (349, choice)
