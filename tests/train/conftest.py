"""A small quantized detector and a handful of scenes, shared by the tests of training."""

import pytest
import torch

from oscillab.data.batches import Batches, to_pixels
from oscillab.data.scenes import Scenes
from oscillab.quant import QuantSpec, quantize
from oscillab.yolo import zoo


@pytest.fixture
def batches():
    """Four batches of four 64-pixel scenes."""
    return Batches(Scenes(16, split="train", size=64), size=64, batch_size=4)


@pytest.fixture
def detector(batches):
    """A YOLOv5n for the scenes' classes, the same for every test, with the BN statistics of one batch.

    Without them the signal of an untrained network dies out on the way, and nothing behind it has a gradient.
    """
    torch.manual_seed(0)
    model = zoo.build("yolov5n", classes=len(batches.dataset.names)).train()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model(to_pixels(next(batches.epoch(0)).images))
    for norm in norms:
        norm.momentum = 0.03
    return model.eval()


@pytest.fixture
def quantized(detector, batches):
    """The detector at 4 bit, calibrated on one batch."""
    return quantize(detector, QuantSpec(bits=4), [to_pixels(next(batches.epoch(0)).images)])


@pytest.fixture
def tiny(tiny_network):
    """The small network of all rooms that train."""
    return tiny_network
