"""Oracles: the official loss's value, parts, gradients and positives; hand-worked matches; invariants."""

import numpy as np
import pytest
import torch

from oscillab.yolo import zoo
from oscillab.yolo.loss import DetectionLoss, build_loss, match, near_cells, objectness_target
from oscillab.yolo.mask_loss import SegmentationLoss
from oscillab.yolo.ota_loss import OtaLoss


@pytest.fixture(scope="module")
def model():
    """A YOLOv5n for 80 classes."""
    return zoo.build("yolov5n")


def outputs_and_targets(rule, seed, count, *, classes=80):
    """Raw outputs that take a gradient, for a batch of two images of 128 pixels, and `count` targets."""
    outputs = [torch.from_numpy(x).requires_grad_() for x in rule.predictions(seed, 2, 5 + classes)]
    targets = torch.from_numpy(rule.targets(101, 2, count, classes)) if count else torch.zeros(0, 6)
    return outputs, targets


@pytest.mark.parametrize(("file", "seed", "count"), [("loss-yolov5", 1, 17), ("loss-yolov5-empty", 2, 0)])
def test_loss_parts_and_gradients_are_official(file, seed, count, shared, rule, model):
    """Oracle: the official code with the hyper-parameters of scratch-low and no scaling; 1e-4 of the largest value."""
    oracle = np.load(shared / "oracle" / f"{file}.npz")
    outputs, targets = outputs_and_targets(rule, seed, count)
    total, items = DetectionLoss(model, scale_gains=False)(outputs, targets, 128)
    total.backward()
    assert total.item() == pytest.approx(float(oracle["loss"]), rel=1e-4)
    found = [items[name].item() for name in ("box", "objectness", "classification")]
    assert found == pytest.approx(oracle["items"].tolist(), rel=1e-4)
    for level, raw in enumerate(outputs):
        expected = oracle[f"grad{level}"]
        np.testing.assert_allclose(raw.grad.numpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_positives_per_level_are_official(shared, rule, model):
    """Oracle: the official code's number of matches on each level."""
    outputs, targets = outputs_and_targets(rule, 1, 17)
    anchors = DetectionLoss(model).anchors
    counts = [len(match(targets, anchors[i], raw.shape[2:4]).target) for i, raw in enumerate(outputs)]
    assert counts == np.load(shared / "oracle" / "loss-yolov5.npz")["positives"].tolist()


def test_one_object_is_answered_for_by_its_cell_and_the_nearest_two():
    """Oracle: by hand: centre (2.3, 1.7) of a 4x4 grid lies near the left (1, 1) and the lower (2, 2) neighbour."""
    targets = torch.tensor([[0, 5, 2.3 / 4, 1.7 / 4, 0.25, 0.5]])
    found = match(targets, torch.tensor([[1.0, 2.0], [9.0, 9.0]]), (4, 4))
    assert sorted(zip(found.column.tolist(), found.row.tolist(), strict=True)) == [(1, 1), (2, 1), (2, 2)]
    assert (found.anchor.tolist(), found.label.tolist(), found.target.tolist()) == ([0] * 3, [5] * 3, [0] * 3)
    own = [i for i in range(3) if (found.column[i], found.row[i]) == (2, 1)][0]
    assert found.box[own].tolist() == pytest.approx([0.3, 0.7, 1.0, 2.0], abs=1e-6)


def test_a_cell_at_the_border_has_no_neighbour_outside():
    """Oracle: by hand: in the first cell's upper left quarter nothing lies to the left or above."""
    near = near_cells(torch.tensor([[0.2, 0.3], [3.9, 3.8], [1.5, 1.5]]), torch.tensor([4.0, 4.0]))
    assert near.T.tolist()[0] == [True, False, False, False, False]
    assert near.T.tolist()[1] == [True, False, False, False, False]
    assert near.T.tolist()[2] == [True, False, False, False, False]  # dead centre: no side is nearer


def test_anchors_of_unlike_size_do_not_answer():
    """Oracle: the ratio rule: 3.9 times as wide is like, 4 times is not, and neither is a quarter."""
    targets = torch.tensor([[0, 0, 0.5, 0.5, 0.39, 0.1], [0, 0, 0.5, 0.5, 0.4, 0.1], [0, 0, 0.5, 0.5, 0.1, 0.025]])
    found = match(targets, torch.tensor([[1.0, 1.0]]), (10, 10))
    assert found.target.unique().tolist() == [0]


def test_of_several_matches_of_one_prediction_the_last_sets_the_objectness():
    """Oracle: PyTorch's indexed assignment on a CPU, which writes in order."""
    torch.manual_seed(0)
    targets = torch.rand(200, 6) * torch.tensor([2.0, 1, 1, 1, 1, 1])
    found = match(targets, torch.rand(3, 2) * 4 + 1, (5, 6))
    likeness = torch.rand(len(found.target)) - 0.2
    expected = torch.zeros(2, 3, 5, 6)
    expected[found.image, found.anchor, found.row, found.column] = likeness.clamp(min=0)
    assert len(found.target) > expected.count_nonzero()  # there are such predictions
    assert torch.equal(objectness_target(torch.zeros(2, 3, 5, 6, 7), found, likeness), expected)


def test_the_order_of_images_does_not_matter(rule, model):
    """Oracle: invariance: images and targets exchanged together leave the loss."""
    outputs, targets = outputs_and_targets(rule, 1, 17)
    loss = DetectionLoss(model)
    exchanged = targets.clone()
    exchanged[:, 0] = 1 - targets[:, 0]
    expected, _ = loss(outputs, targets, 128)
    found, _ = loss([raw.flip(0) for raw in outputs], exchanged, 128)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_gains_are_scaled_as_the_official_training_does(rule, model):
    """Oracle: the unscaled parts times (size / 640)² for the objectness and classes / 80 for the classification."""
    for classes in (80, 8):
        network = zoo.build("yolov5n", classes)
        outputs, targets = outputs_and_targets(rule, 1, 17, classes=classes)
        _, plain = DetectionLoss(network, scale_gains=False)(outputs, targets, 160)
        _, scaled = DetectionLoss(network)(outputs, targets, 160)
        assert scaled["box"].item() == pytest.approx(plain["box"].item())
        assert scaled["objectness"].item() == pytest.approx(plain["objectness"].item() / 16)
        assert scaled["classification"].item() == pytest.approx(plain["classification"].item() * classes / 80)


def test_one_class_has_no_classification(rule):
    """Oracle: with one class there is nothing to tell apart: an exact zero, and no gradient for its logit."""
    outputs, targets = outputs_and_targets(rule, 1, 17, classes=1)
    total, items = DetectionLoss(zoo.build("yolov5n", 1))(outputs, targets, 128)
    total.backward()
    assert items["classification"] == 0
    assert not outputs[0].grad[..., 5].any()
    assert outputs[0].grad[..., :5].any()


def test_a_batch_without_objects_and_objects_without_anchor_give_a_finite_loss(model, rule):
    """Oracle: the box and classification parts are exact zeros, as there is nothing to answer for."""
    outputs, none = outputs_and_targets(rule, 2, 0)
    dots = torch.tensor([[0, 3, 0.5, 0.5, 0.0, 0.0], [1, 3, 0.5, 0.5, 1e-5, 1e-5]])
    for targets in (none, dots):
        total, items = DetectionLoss(model)(outputs, targets, 128)
        assert torch.isfinite(total)
        assert (items["box"].item(), items["classification"].item()) == (0, 0)


def test_autocast_does_not_lower_the_precision(rule, model):
    """Oracle: the loss outside autocast; bfloat16 inside would differ in the third digit."""
    outputs, targets = outputs_and_targets(rule, 1, 17)
    expected, _ = DetectionLoss(model)(outputs, targets, 128)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = DetectionLoss(model)(outputs, targets, 128)
        rough, _ = DetectionLoss(model)([raw.bfloat16() for raw in outputs], targets, 128)
    assert found == expected
    assert rough.dtype == torch.float32


def test_gradients_agree_with_finite_differences(model):
    """Oracle: finite differences in float64 along random directions; fixed boxes hold the objectness target."""
    torch.manual_seed(0)
    loss = DetectionLoss(zoo.build("yolov5n", 2))
    targets = torch.tensor([[0, 1, 0.4, 0.6, 0.3, 0.2], [0, 0, 0.7, 0.2, 0.1, 0.1]], dtype=torch.float64)
    outputs = [torch.randn(1, 3, 64 // s, 64 // s, 7, dtype=torch.float64, requires_grad=True) for s in (8, 16, 32)]
    loss(outputs, targets, 64)[0].backward()
    for raw in outputs:
        direction = torch.randn_like(raw)
        direction[..., :4] = 0  # the boxes set the objectness target, through which no gradient is meant to flow
        with torch.no_grad():
            values = []
            for step in (1e-5, -1e-5):
                raw += step * direction
                values.append(loss(outputs, targets, 64)[0].item())
                raw -= step * direction
        assert (values[0] - values[1]) / 2e-5 == pytest.approx((raw.grad * direction).sum().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 80, 0.5, 0.5, 0.1, 0.1], r"class of every target must be 0\.\.79, got 80\.\.80"),
        ([0, -1, 0.5, 0.5, 0.1, 0.1], r"class of every target must be 0\.\.79, got -1\.\.-1"),
        ([2, 0, 0.5, 0.5, 0.1, 0.1], r"image index of every target must be 0\.\.1, got 2\.\.2"),
        ([0, 0, 0.5, 0.5, 0.1], r"targets must be \(n, 6\), got \(1, 5\)"),
    ],
)
def test_targets_of_another_model_are_refused(row, message, rule, model):
    """Oracle: the one-line message says what is allowed and what was given."""
    outputs, _ = outputs_and_targets(rule, 1, 0)
    with pytest.raises(ValueError, match=message):
        DetectionLoss(model)(outputs, torch.tensor([row], dtype=torch.float32), 128)


KINDS = {"yolov5n": DetectionLoss, "yolov5x": DetectionLoss, "yolov5s-seg": SegmentationLoss, "yolov7-tiny": OtaLoss}
KINDS |= {"yolov7-tiny-deploy": OtaLoss, "yolov7": OtaLoss, "yolov7-seg": SegmentationLoss, "yolov5m": DetectionLoss}


@pytest.mark.parametrize("name", KINDS)
def test_every_network_gets_its_official_loss(name):
    """Oracle: the recipes: OTA for YOLOv7, masks for -seg; other gains for the larger networks."""
    loss = build_loss(zoo.build(name, 2))
    assert type(loss) is KINDS[name]
    small = name.startswith(("yolov5n", "yolov5s", "yolov7-tiny"))
    gains = (0.05, 1.0, 0.5) if small else (0.05, 0.7, 0.3)
    assert tuple(loss.gains[part] for part in ("box", "objectness", "classification")) == gains
    assert loss.gains.get("mask", 0.05) == 0.05


def test_options_go_before_the_recipe():
    """Oracle: the options given."""
    loss = build_loss(zoo.build("yolov5n-seg", 2), box=0.1, scale_gains=False, anchor_threshold=3.0)
    assert (loss.gains["box"], loss.gains["mask"], loss.scale_gains, loss.anchor_threshold) == (0.1, 0.1, False, 3.0)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-seg", "yolov7-tiny"])
def test_one_call_serves_every_network(name):
    """Oracle: steps of gradient descent on one batch lower the loss by a tenth and more."""
    torch.manual_seed(0)
    model = zoo.build(name, 2).train()
    loss = build_loss(model)
    images = torch.rand(2, 3, 64, 64)
    targets = torch.tensor([[0, 1, 0.5, 0.5, 0.5, 0.5], [1, 0, 0.3, 0.6, 0.4, 0.3]])
    masks = [torch.zeros(1, 64, 64, dtype=torch.uint8) for _ in range(2)]
    masks[0][:, 16:48, 16:48] = 1
    masks[1][:, 30:48, 8:32] = 1
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    values = []
    for _ in range(10):
        total, items = loss(model(images), targets, 64, masks=masks)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert values[-1] < 0.9 * values[0]
    assert not any(item.requires_grad for item in items.values())
