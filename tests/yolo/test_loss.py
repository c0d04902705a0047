"""All losses: the official values, parts, gradients and positives; hand-worked matches; invariants."""

import numpy as np
import pytest
import torch

from oscillab.yolo import zoo
from oscillab.yolo.loss import DetectionLoss, build_loss, match, objectness_target
from oscillab.yolo.mask_loss import SegmentationLoss
from oscillab.yolo.ota_loss import OtaLoss

# of each recorded loss: network, loss, seed of the predictions, how many targets, scale of the predictions
EXAMPLES = {
    "yolov5": ("yolov5n", DetectionLoss, 1, 17, 1.0),
    "yolov5-empty": ("yolov5n", DetectionLoss, 2, 0, 1.0),
    "yolov5-seg": ("yolov5n-seg", SegmentationLoss, 3, 11, 1.0),
    "yolov7-tiny": ("yolov7-tiny", DetectionLoss, 4, 9, 0.7),
    "yolov7-tiny-ota": ("yolov7-tiny", OtaLoss, 5, 9, 0.7),
}
KINDS = ("yolov5", "yolov5-seg", "yolov7-tiny-ota")


@pytest.fixture(params=EXAMPLES)
def name(request):
    """The name of a recorded loss."""
    return request.param


@pytest.fixture
def example(name, rule):
    """The loss's class, network, outputs that take a gradient, targets and masks: two images of 128 pixels."""
    network, kind, seed, count, scale = EXAMPLES[name]
    masked = kind is SegmentationLoss
    outputs = [
        torch.from_numpy(x).requires_grad_() for x in rule.predictions(seed, 2, 117 if masked else 85, scale=scale)
    ]
    targets = torch.from_numpy(rule.targets(seed + 100, 2, count)) if count else torch.zeros(0, 6)
    masks = torch.from_numpy(rule.overlap_masks(203, 2, 6)) if masked else None
    outputs = (outputs, torch.from_numpy(rule.prototypes(53, 2)).requires_grad_()) if masked else outputs
    return kind, zoo.build(network), outputs, targets, masks


def leaves(outputs):
    """The tensors of which outputs consist."""
    return [*outputs[0], outputs[1]] if isinstance(outputs, tuple) else outputs


def test_loss_parts_and_gradients_are_official(name, example, shared):
    """Oracle: the official code with its hyper-parameters and no scaling; 1e-4 of the largest value."""
    kind, model, outputs, targets, masks = example
    oracle = np.load(shared / "oracle" / f"loss-{name}.npz")
    total, items = kind(model, scale_gains=False)(outputs, targets, 128, masks=masks)
    total.backward()
    assert total.item() == pytest.approx(float(oracle["loss"]), rel=1e-4)
    found = [items[part].item() for part in ("box", "mask", "objectness", "classification") if part in items]
    found += [sum(found)] * name.startswith("yolov7")
    assert found == pytest.approx(oracle["items"].tolist(), rel=1e-4)
    for key, raw in zip(("grad0", "grad1", "grad2", "grad_proto"), leaves(outputs), strict=False):
        np.testing.assert_allclose(raw.grad.numpy(), oracle[key], rtol=0, atol=1e-4 * np.abs(oracle[key]).max())


@pytest.mark.parametrize("name", ["yolov5", "yolov7-tiny-ota"], indirect=True)
def test_positives_per_level_are_official(name, example, shared):
    """Oracle: the official code's number of matches on each level."""
    kind, model, outputs, targets, _ = example
    counts = [len(level.target) for level in kind(model).assign(outputs, targets)]
    assert counts == np.load(shared / "oracle" / f"loss-{name}.npz")["positives"].tolist()


@pytest.mark.parametrize("name", ["yolov5", "yolov7-tiny-ota"], indirect=True)
def test_the_order_of_images_does_not_matter(example):
    """Oracle: invariance: images and targets exchanged together leave the loss."""
    kind, model, outputs, targets, _ = example
    exchanged = torch.cat((1 - targets[:, :1], targets[:, 1:]), 1)
    expected, _ = kind(model)(outputs, targets, 128)
    found, _ = kind(model)([raw.flip(0) for raw in outputs], exchanged, 128)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["yolov5", "yolov5-seg"], indirect=True)
def test_autocast_does_not_lower_the_precision(example):
    """Oracle: the loss outside autocast; bfloat16 inside would differ in the third digit."""
    kind, model, outputs, targets, masks = example
    expected, _ = kind(model)(outputs, targets, 128, masks=masks)
    with torch.autocast("cpu", torch.bfloat16):
        assert kind(model)(outputs, targets, 128, masks=masks)[0] == expected
        if masks is None:
            assert kind(model)([raw.bfloat16() for raw in outputs], targets, 128)[0].dtype == torch.float32


@pytest.mark.parametrize("name", KINDS, indirect=True)
def test_nothing_to_answer_for_gives_a_finite_loss(example):
    """Oracle: exact zeros of the box, classification and mask parts: no object, objects of no size, no masks."""
    kind, model, outputs, _, masks = example
    dots = torch.tensor([[0, 3, 0.5, 0.5, 0.0, 0.0], [1, 3, 0.5, 0.5, 1e-5, 1e-5]])
    listed = None if masks is None else [torch.zeros(0, 128, 128, dtype=torch.uint8)] * 2
    for targets, planes in ((torch.zeros(0, 6), masks), (torch.zeros(0, 6), listed), (dots, masks)):
        total, items = kind(model)(outputs, targets, 128, masks=planes)
        total.backward()
        assert torch.isfinite(total)
        assert all(value == 0 for part, value in items.items() if part != "objectness")


def test_one_object_is_answered_for_by_its_cell_and_the_nearest_two():
    """Oracle: by hand: centre (2.3, 1.7) of a 4x4 grid lies near the left (1, 1) and the lower (2, 2) neighbour."""
    targets = torch.tensor([[0, 5, 2.3 / 4, 1.7 / 4, 0.25, 0.5]])
    found = match(targets, torch.tensor([[1.0, 2.0], [9.0, 9.0]]), (4, 4))
    assert sorted(zip(found.column.tolist(), found.row.tolist(), strict=True)) == [(1, 1), (2, 1), (2, 2)]
    assert (found.anchor.tolist(), found.label.tolist(), found.target.tolist()) == ([0] * 3, [5] * 3, [0] * 3)
    own = [i for i in range(3) if (found.column[i], found.row[i]) == (2, 1)][0]
    assert found.box[own].tolist() == pytest.approx([0.3, 0.7, 1.0, 2.0], abs=1e-6)


@pytest.mark.parametrize(("x", "y"), [(0.2, 0.3), (3.9, 3.8), (1.5, 1.5)])
def test_a_cell_at_the_border_has_no_neighbour_outside(x, y):
    """Oracle: by hand: beyond the first and the last cell there is none; in a cell's dead centre no side is nearer."""
    found = match(torch.tensor([[0, 0, x / 4, y / 4, 0.25, 0.25]]), torch.tensor([[1.0, 1.0]]), (4, 4))
    assert (found.column.tolist(), found.row.tolist()) == ([int(x)], [int(y)])


def test_anchors_of_unlike_size_do_not_answer():
    """Oracle: the ratio rule: 3.9 times as wide is like, 4 times is not, and neither is a quarter."""
    targets = torch.tensor([[0, 0, 0.5, 0.5, 0.39, 0.1], [0, 0, 0.5, 0.5, 0.4, 0.1], [0, 0, 0.5, 0.5, 0.1, 0.025]])
    assert match(targets, torch.tensor([[1.0, 1.0]]), (10, 10)).target.unique().tolist() == [0]


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


@pytest.mark.parametrize("classes", [80, 8, 1])
def test_gains_are_scaled_as_the_official_training_does(classes, rule):
    """Oracle: the unscaled parts times (size / 640)² for the objectness and classes / 80 for the classification, which is an
    exact zero for one class, with no gradient for its logit."""
    network, targets = zoo.build("yolov5n", classes), torch.from_numpy(rule.targets(101, 2, 17, classes))
    outputs = [torch.from_numpy(x).requires_grad_() for x in rule.predictions(1, 2, 5 + classes)]
    _, plain = DetectionLoss(network, scale_gains=False)(outputs, targets, 160)
    total, scaled = DetectionLoss(network)(outputs, targets, 160)
    total.backward()
    assert scaled["box"].item() == pytest.approx(plain["box"].item())
    assert scaled["objectness"].item() == pytest.approx(plain["objectness"].item() / 16)
    assert scaled["classification"].item() == pytest.approx(plain["classification"].item() * classes / 80)
    assert outputs[0].grad[..., 5].any() == (scaled["classification"] != 0) == (classes > 1)


def test_gradients_agree_with_finite_differences():
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


@pytest.mark.parametrize("name", ["yolov5"], indirect=True)
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 80, 0.5, 0.5, 0.1, 0.1], r"class of every target must be 0\.\.79, got 80\.\.80"),
        ([0, -1, 0.5, 0.5, 0.1, 0.1], r"class of every target must be 0\.\.79, got -1\.\.-1"),
        ([2, 0, 0.5, 0.5, 0.1, 0.1], r"image index of every target must be 0\.\.1, got 2\.\.2"),
        ([0, 0, 0.5, 0.5, 0.1], r"targets must be \(n, 6\), got \(1, 5\)"),
    ],
)
def test_targets_of_another_model_are_refused(row, message, example):
    """Oracle: the one-line message says what is allowed and what was given."""
    kind, model, outputs, *_ = example
    with pytest.raises(ValueError, match=message):
        kind(model)(outputs, torch.tensor([row], dtype=torch.float32), 128)


LOSSES = {"yolov5n": DetectionLoss, "yolov5m": DetectionLoss, "yolov5s-seg": SegmentationLoss, "yolov7-tiny": OtaLoss}
LOSSES |= {"yolov7-tiny-deploy": OtaLoss, "yolov7": OtaLoss, "yolov7-seg": SegmentationLoss}


@pytest.mark.parametrize("network", LOSSES)
def test_every_network_gets_its_official_loss(network):
    """Oracle: the recipes: OTA for YOLOv7, masks for -seg; other gains for the larger networks. Options go before them."""
    model = zoo.blueprint(network, 2)
    loss, other = build_loss(model), build_loss(model, box=0.1, scale_gains=False, anchor_threshold=3.0)
    small = network.startswith(("yolov5n", "yolov5s", "yolov7-tiny"))
    gains = (0.05, 1.0, 0.5) if small else (0.05, 0.7, 0.3)
    assert type(loss) is LOSSES[network]
    assert tuple(loss.gains[part] for part in ("box", "objectness", "classification")) == gains
    assert (loss.gains.get("mask", 0.05), other.gains["box"], other.gains.get("mask", 0.1)) == (0.05, 0.1, 0.1)
    assert (other.scale_gains, other.anchor_threshold) == (False, 3.0)


@pytest.mark.parametrize("network", ["yolov5n", "yolov5n-seg", "yolov7-tiny"])
def test_one_call_serves_every_network(network):
    """Oracle: steps of gradient descent on one batch lower the loss by a tenth and more."""
    torch.manual_seed(0)
    model = zoo.build(network, 2).train()
    loss, images = build_loss(model), torch.rand(2, 3, 64, 64)
    targets = torch.tensor([[0, 1, 0.5, 0.5, 0.5, 0.5], [1, 0, 0.3, 0.6, 0.4, 0.3]])
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[0, 16:48, 16:48] = masks[1, 30:48, 8:32] = 1
    optimizer, values = torch.optim.Adam(model.parameters(), 3e-3), []
    for _ in range(10):
        total, items = loss(model(images), targets, 64, masks=masks)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert values[-1] < 0.9 * values[0]
    assert not any(item.requires_grad for item in items.values())
