"""Oracles: boxes worked out by hand, the loss's own matching, the real data that the anchors were made for."""

import json
import logging

import numpy as np
import pytest
import torch

import oscillab
from oscillab.__main__ import main
from oscillab.data.dataset import CocoFolder
from oscillab.data.scenes import Scenes
from oscillab.provenance import SHIPPED
from oscillab.yolo import zoo
from oscillab.yolo.boxes import ENOUGH, auto_anchor, box_sizes, cluster, evolve, fit_anchors, likenesses, suitability
from oscillab.yolo.loss import DetectionLoss, build_loss, match


def test_suitability_by_hand():
    """Oracle: likenesses 1/2 and 1/5 of two boxes: the second is beyond a threshold of 4, within one of 6."""
    anchors = [[[20, 20], [1, 1]]]
    sizes = [[10, 20], [4, 20]]
    assert suitability(sizes, anchors) == (0.5, 0.25, 0.5)
    found = suitability(sizes, anchors, threshold=6.0)
    assert found == pytest.approx((1.0, 0.35, 1.0))


def test_an_anchor_suits_a_box_where_the_loss_lets_it_answer():
    """Oracle: the matching of the loss, on random boxes."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.cat((torch.zeros(200, 2), torch.full((200, 2), 0.5), torch.rand(200, 2, generator=generator)), 1)
    anchors = torch.tensor([[1.0, 2.0], [4.0, 3.0], [16.0, 20.0]])
    found = match(targets, anchors, (32, 32))
    answered = len(torch.stack((found.anchor, found.target)).unique(dim=1)[0])
    sizes = (targets[:, 4:6] * 32).numpy()
    assert suitability(sizes, anchors.numpy()).anchors_per_box == pytest.approx(answered / 200)
    assert suitability(sizes, anchors.numpy()).recall == pytest.approx(len(found.target.unique()) / 200)


def test_the_official_anchors_suit_the_data_that_they_were_made_for(shared):
    """Oracle: YOLOv5's anchors were fitted to COCO at 640 pixels: nobody would replace them; a fit of our own, to these
    pictures alone, is fitter still."""
    truth = json.loads((shared / "coco" / "annotations" / "instances_val2017.json").read_text())
    sizes = box_sizes(truth, 640)
    assert len(sizes) == sum(not entry["iscrowd"] for entry in truth["annotations"])
    found = suitability(sizes, zoo.build("yolov5n", 1).anchors.numpy())
    assert found.recall > 0.99 > ENOUGH
    own = suitability(sizes, fit_anchors(sizes))
    assert own.fitness > found.fitness and own.recall > 0.99
    assert suitability(sizes / 4, zoo.build("yolov5n", 1).anchors.numpy()).recall < ENOUGH  # at 160 pixels


def test_sizes_are_those_of_the_letterboxed_boxes():
    """Oracle: by hand: an image of 200 x 100 at 50 pixels is a quarter of its size; crowds do not count."""
    images = [{"id": 7, "width": 200, "height": 100}, {"id": 8, "width": 50, "height": 25}]
    boxes = [(7, 0, [0, 0, 40, 80]), (8, 0, [1, 1, 10, 20]), (8, 1, [0, 0, 50, 25])]
    rows = [{"image_id": image, "iscrowd": crowd, "bbox": box} for image, crowd, box in boxes]
    assert box_sizes({"images": images, "annotations": rows}, 50).tolist() == [[10, 20], [10, 20]]


def test_clusters_far_apart_are_found():
    """Oracle: nine clusters of known centres, whatever the seed; then the anchors come from small to large."""
    generator = np.random.default_rng(0)
    centres = np.array([(w, h) for w in (20, 90, 200) for h in (30, 110, 230)], np.float64)
    sizes = (centres[:, None] * generator.uniform(0.97, 1.03, (9, 60, 2))).reshape(-1, 2)
    for seed in range(3):
        found = fit_anchors(sizes, seed=seed, generations=200)
        assert found.shape == (3, 3, 2) and found.dtype == np.float32
        assert (np.diff(found.reshape(9, 2).prod(1)) > 0).all()
        expected = centres[centres.prod(1).argsort()]
        assert np.abs(found.reshape(9, 2) / expected - 1).max() < 0.04
        assert np.array_equal(found.astype(np.float16).astype(np.float32), found)
    assert np.array_equal(fit_anchors(sizes, seed=2, generations=200), found)


def test_mutations_never_lower_the_fitness_and_mostly_raise_it():
    """Invariant: of a generation's mutations the better one lives on."""
    generator = np.random.default_rng(1)
    sizes = np.exp(generator.normal(3.5, 0.8, (400, 2)))
    start = cluster(sizes / sizes.std(0), 9, generator) * sizes.std(0)
    fitness = [likenesses(sizes, evolve(sizes, start, n, 4.0, np.random.default_rng(2))).max(1) for n in (0, 100, 400)]
    means = [(best * (best > 1 / 4)).mean() for best in fitness]
    assert means[0] < means[1] < means[2]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([], "the data set holds none"),
        ([[10, 10]] * 50, "9 anchors need as many boxes of different size, got 1"),
        ([[10, 0]], r"above 0, \(n, 2\), got \(1, 2\)"),
        ([[10, float("nan")]], "must be finite"),
        ([[1, 2, 3]], r"got \(1, 3\)"),
    ],
)
def test_sizes_that_no_anchor_can_suit_are_refused(sizes, message):
    """Oracle: the one-line message says what is needed."""
    with pytest.raises(ValueError, match=message):
        fit_anchors(sizes)


class Boxes:
    """A data set of one box a picture, of given (width, height) in pictures of 640 pixels."""

    def __init__(self, *sizes):
        self.sizes = sizes

    def ground_truth(self):
        images = [{"id": index, "width": 640, "height": 320} for index in range(len(self.sizes))]
        rows = [{"image_id": index, "bbox": [0, 0, *size]} for index, size in enumerate(self.sizes)]
        return {"images": images, "annotations": rows}


def test_anchors_that_suit_are_kept(caplog):
    """Oracle: the recorded best possible recall of scenes, 1, found by the loss's own matching; the log says so."""
    model, dataset = zoo.build("yolov5n", 10), Scenes(64, split="train")
    before = model.anchors.clone()
    with caplog.at_level(logging.INFO, "oscillab.yolo.boxes"):
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
        CocoFolder.write(Scenes(count, split=split, size=64), tmp_path / "mine", f"{split}2017")
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
