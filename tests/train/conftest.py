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
def tiny():
    """`tiny(bits=3, **spec)`: three quantized convolutions, two with batch norm, in eval mode, the same for every test."""

    def build(bits=3, **spec):
        torch.manual_seed(0)
        blocks = [torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.SiLU()]
        blocks += [torch.nn.Conv2d(8, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 1)]
        model = torch.nn.Sequential(*blocks).eval()
        return quantize(model, QuantSpec(bits=bits, first_last_bits=bits, **spec), [pixel_batch(0)])

    return build


def pixel_batch(seed):
    """Random pixels (8, 3, 10, 10) of the tiny network."""
    return torch.rand(8, 3, 10, 10, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def train_tiny():
    """`train_tiny(model, optimizer, steps)`: steps towards noise that stays the same, which makes weights flip."""

    def squared_error(outputs, targets, image_size):
        error = (outputs - targets).square().mean()
        return error, {"error": error.detach()}

    def train(model, optimizer, steps, *, remedy=None, each=None):
        loss = squared_error if remedy is None else remedy.loss(squared_error)
        model.train()
        for step in range(steps):
            images = pixel_batch(step % 4)
            targets = torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(step % 4))
            optimizer.zero_grad()
            loss(model(images), targets, 10)[0].backward()
            optimizer.step()
            if each:
                each(step)
        return model.eval()

    return train
