"""mAP of the exact form: it does not depend on kernels or batches, and a float network is measured as it is."""

import torch

from oscillab.data import evaluate as judging
from oscillab.data.batches import to_pixels
from oscillab.data.scenes import Scenes
from oscillab.provenance import SHIPPED
from oscillab.quant import QuantSpec, quantize
from oscillab.quant.exact import ExactConv2d
from oscillab.train import accuracy
from oscillab.yolo import checkpoint


def calibrated():
    """The shipped detector at 6 bits, which finds most of the scenes' objects without training."""
    scenes = Scenes(8, split="train", size=96)
    pictures = torch.stack([torch.from_numpy(scenes.sample(k).image).permute(2, 0, 1) for k in range(8)])
    return quantize(checkpoint.load(SHIPPED), QuantSpec(bits=6), [to_pixels(pictures)])


def test_batches_and_kernels_do_not_matter():
    """Oracle: one evaluation for the other, every box and score as published; the model keeps its modules and modes."""
    model, scenes = calibrated().train(), Scenes(12, split="val", size=96)
    found = accuracy.evaluate(model, scenes, batch_size=5)
    again = accuracy.evaluate(model.to(memory_format=torch.channels_last), scenes, batch_size=1)
    assert found.map > 0.1 and found.map == again.map
    for a, b in zip(found.detections, again.detections, strict=True):
        assert a.shape == b.shape and abs(a - b).max(initial=0) < 1e-3
    assert model.training and not any(isinstance(module, ExactConv2d) for module in model.modules())


def test_a_float_network_is_measured_as_it_is():
    """Oracle: `oscillab.data.evaluate`."""
    model, scenes = checkpoint.load(SHIPPED), Scenes(12, split="val", size=96)
    assert accuracy.as_measured(model) is model
    assert accuracy.evaluate(model, scenes).per_class == judging.evaluate(model, scenes).per_class
