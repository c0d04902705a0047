"""A small quantized detector and a handful of scenes, shared by the tests of training."""

import pytest
import torch

from oscillab.data.batches import Batches, to_pixels
from oscillab.data.scenes import Scenes
from oscillab.quant import QuantSpec, quantize
from oscillab.train.remedies.controls import reestimate_bn
from oscillab.yolo import zoo


@pytest.fixture
def batches():
    """Four batches of four 64-pixel scenes."""
    return Batches(Scenes(16, split="train", size=64), size=64, batch_size=4)


@pytest.fixture
def detector(batches):
    """A YOLOv5n for the scenes' classes, the same for every test; without BN statistics its signal would die out."""
    torch.manual_seed(0)
    model = zoo.build("yolov5n", classes=len(batches.dataset.names))
    return reestimate_bn(model, [to_pixels(next(batches.epoch(0)).images)]).eval()


@pytest.fixture
def quantized(detector, batches):
    """The detector at 4 bit, calibrated on one batch."""
    return quantize(detector, QuantSpec(bits=4), [to_pixels(next(batches.epoch(0)).images)])


@pytest.fixture
def tiny(tiny_network):
    """The small network of all rooms that train."""
    return tiny_network


@pytest.fixture
def squared():
    """A loss for networks that detect nothing: the outputs' mean square, or distance from targets of their shape."""

    def squared_error(outputs, targets, image_size, *, masks=None):
        error = (outputs - (targets if targets.shape == outputs.shape else 0)).square().mean()
        return error, {"error": error.detach()}

    return squared_error


@pytest.fixture
def same():
    """`same(model, other)`: whether two networks, or state_dicts, are equal to the last bit."""

    def equal(one, other):
        one, other = (each if isinstance(each, dict) else each.state_dict() for each in (one, other))
        return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)

    return equal
