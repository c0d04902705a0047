"""The controls train and change what they say, and nothing else."""

import copy

import pytest
import torch

from oscillab.data.batches import to_pixels
from oscillab.train.config import TrainSpec
from oscillab.train.layer_errors import output_errors
from oscillab.train.remedies.controls import bn_affine, correct_bias
from oscillab.yolo.loss import DetectionLoss

IMAGES = [torch.rand(4, 3, 10, 10, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]


@pytest.mark.parametrize("biases", [False, True])
def test_bn_tuning_trains_batch_norm_alone(quantized, batches, biases):
    """Oracle: set equality of names; weights, step sizes, statistics and flags are as before, bit for bit; the loss on
    the pictures that it saw falls."""
    loss, batch = DetectionLoss(quantized), next(batches.epoch(0))

    def value():
        with torch.no_grad():
            quantized.train()
            for module in quantized.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()
            return loss(quantized(to_pixels(batch.images)), batch.targets, 64)[0].item()

    first, norms = value(), {n for n, m in quantized.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    before = copy.deepcopy(quantized.state_dict())
    flags = [p.requires_grad for p in quantized.parameters()]
    spec = TrainSpec(epochs=3, learning_rate=1e-2, warmup_steps=0, weight_decay=0.1)
    bn_affine(quantized, batches, spec=spec, biases=biases, progress=False)
    changed = {name for name, tensor in quantized.state_dict().items() if not torch.equal(tensor, before[name])}
    allowed = {f"{norm}.{what}" for norm in norms for what in ("weight", "bias")}
    detect = {f"model.24.m.{i}.bias" for i in range(3)}
    assert changed == allowed | (detect if biases else set())
    assert [p.requires_grad for p in quantized.parameters()] == flags and not quantized.training
    assert value() < first


def test_bias_correction_leaves_no_mean_error(tiny):
    """Oracle: the definition; on the same pictures no channel has a mean error, each layer in the sight of the others'
    corrections, and no weight, step size or running statistic changed."""
    model = tiny()
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if hasattr(module, "enabled"):
            module.enabled = False
    before = copy.deepcopy(model.state_dict())
    errors = output_errors(plain, model, IMAGES, at="batch_norm")
    assert max(abs(row["error_mean"]) for row in errors) > 0.02
    correct_bias(model, IMAGES, float_model=plain)
    assert max(abs(row["error_mean"]) for row in output_errors(plain, model, IMAGES, at="batch_norm")) < 1e-5
    assert list(model.state_dict()) == list(before)
    changed = {name for name, tensor in model.state_dict().items() if not (tensor == before[name]).all()}
    assert changed == {"1.bias", "4.bias", "6.bias"}
    assert all(p.requires_grad for p in model.parameters())


def test_bias_correction_against_its_own_latent_weights(tiny):
    """Oracle: the model's copy with its quantizers off, named as the float model, gives the same, bit for bit."""
    model = tiny()
    other, plain = copy.deepcopy(model), copy.deepcopy(model)
    correct_bias(model, IMAGES)
    correct_bias(other, IMAGES, float_model=plain)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
