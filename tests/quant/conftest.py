"""Small networks with the shapes of convolution that detectors have."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from oscillab.quant.kernel import kernel_off
from oscillab.quant.lsq import lsq


class Branches(nn.Module):
    """Two convolutions that read one tensor, as YOLO's C3 block has them."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(8, 8, 1)
        self.two = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return torch.cat([self.one(x), self.two(x)], 1)


def build():
    """A network of images (N, 3, H, W) with strided, grouped, dilated, reflecting and pointwise convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.Conv2d(8, 8, 3, groups=4, dilation=2, padding=2, padding_mode="reflect", bias=False),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        Branches(),
        nn.SiLU(),
        nn.Conv2d(16, 5, 1),
    )


@pytest.fixture
def network():
    """A fresh float network in train mode, the same weights each time."""
    torch.manual_seed(0)
    model = build()
    with torch.no_grad():  # statistics of a trained network
        for _ in range(3):
            model(torch.rand(8, 3, 16, 16))
    return model


@pytest.fixture
def fresh():
    """A function that builds the network with other weights."""
    return build


@pytest.fixture
def batches():
    """Two batches of images in 0..1."""
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(4, 3, 16, 16, generator=generator) for _ in range(2)]


def lsq_gradients(x, step_size, low, high, *, upstream, offset=None, **options):
    """The output, and the gradients to x, to the step size and, where there is one, to the offset."""
    leaves = [tensor.detach().requires_grad_() for tensor in (x, step_size, offset) if tensor is not None]
    shift = leaves[2] if offset is not None else None
    y = lsq(leaves[0], leaves[1], low, high, offset=shift, **options)
    return y.detach(), *torch.autograd.grad(y, leaves, upstream)


@pytest.fixture
def plain_gradients():
    """The function above, on the kernel where there is one."""
    return lsq_gradients


@pytest.fixture(params=["kernel", "torch"])
def gradients(request):
    """The function above, on the kernel and on torch's operations."""

    def call(*arguments, **options):
        with kernel_off() if request.param == "torch" else nullcontext():
            return lsq_gradients(*arguments, **options)

    return call
