"""Oracles: which loss and which gains the official recipes give each network."""

import pytest
import torch

from oscillab.yolo import zoo
from oscillab.yolo.loss import DetectionLoss, build_loss
from oscillab.yolo.mask_loss import SegmentationLoss
from oscillab.yolo.ota_loss import OtaLoss

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
