"""Fold what training needs out of a network: BatchNorms, branches, learned offsets.

`reparameterize` folds the learned offsets and factors of YOLOv7's training graph into the head, which gives the network
that the authors released. `fuse` goes all the way: every BatchNorm into its convolution, the branches of every
`RepConv` into one. Both are exact: outputs differ by rounding alone.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .blocks import Conv, RepConv
from .graph import Detector
from .heads import GridDetect, ImplicitDetect, ImplicitSegment, Segment


class FusedConv(nn.Module):
    """A convolution with a bias and its activation, what is left of a `Conv`: keys `conv.weight`, `conv.bias`."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module):
        super().__init__()
        self.conv = conv
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated map."""
        return self.act(self.conv(x))


class FusedRepConv(nn.Module):
    """One 3x3 convolution and its activation, what is left of a `RepConv`: keys `rbr_reparam.weight` and `.bias`."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module):
        super().__init__()
        self.rbr_reparam = conv
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated map."""
        return self.act(self.rbr_reparam(x))


@torch.no_grad()
def reparameterize(model: Detector) -> Detector:
    """Return the released form of a YOLOv7 training graph, a copy (`yolov7` becomes `yolov7-deploy`).

    It computes the same; `model` stays as it is. Raises ValueError for a network without such a form, and for one whose
    convolutions are not plain ones (a quantized one).
    """
    if not isinstance(model.head, ImplicitDetect):
        raise ValueError(f"model must be a training graph, yolov7 or yolov7-tiny, got {model.name}")
    check_plain(model)
    released = copy.deepcopy(model)
    released.model[-1] = plain_head(model.head)
    released.name = f"{model.name}-deploy"
    return released


@torch.no_grad()
def fuse(model: Detector) -> Detector:
    """Return a copy of a float network, in eval mode, with every BatchNorm and re-parameterization folded away.

    It computes the same and has fewer layers; `model` stays as it is. Raises ValueError for a network whose
    convolutions are not plain ones (a quantized one) and for one that is fused already.
    """
    if is_fused(model):
        raise ValueError(f"this {model.name} is fused already")
    check_plain(model)
    fused = copy.deepcopy(model).eval()
    if type(fused.head) in PLAIN_HEADS:
        fused.model[-1] = plain_head(fused.head)
    for parent in list(fused.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Conv):
                setattr(parent, name, FusedConv(folded(child.conv, child.bn), child.act))
            elif isinstance(child, RepConv):
                setattr(parent, name, FusedRepConv(merged(child), child.act))
    return fused


def is_fused(model: nn.Module) -> bool:
    """Tell whether the network has gone through `fuse`."""
    return any(isinstance(layer, FusedConv) for layer in model.modules())


def check_plain(model: nn.Module) -> None:
    """Raise ValueError where a convolution is not a plain nn.Conv2d, so that folding would break it."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and type(layer) is not nn.Conv2d:
            raise ValueError(f"only a float network can be folded, but layer {name!r} is a {type(layer).__name__}")


def folded(conv: Any, bn: Any) -> Any:
    """Return one convolution (a new one) that computes `bn(conv(x))` with the BatchNorm's running statistics.

    w' = gamma / sqrt(var + eps) · w,  b' = beta − gamma / sqrt(var + eps) · mean.
    """
    slope = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    weight, bias = conv.weight * slope.view(-1, 1, 1, 1), bn.bias - slope * bn.running_mean
    return with_weights(conv, weight, bias)


def with_weights(conv: Any, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return a convolution like `conv` with that weight (C_out, C_in, K, K) and bias (C_out,)."""
    made = copy.deepcopy(conv)
    made.weight, made.bias = nn.Parameter(weight), nn.Parameter(bias)
    return made


def merged(layer: RepConv) -> nn.Conv2d:
    """Return the one 3x3 convolution that computes a `RepConv`'s sum: a 1x1 kernel is a 3x3 one with a rim of zeros."""
    dense, point = folded(*layer.rbr_dense), folded(*layer.rbr_1x1)
    return with_weights(dense, dense.weight + pad(point.weight, (1, 1, 1, 1)), dense.bias + point.bias)


def plain_head(head: Any) -> Any:
    """Return a copy of the head without learned offsets and factors that computes the same.

    m · (W (x + a) + b) = (m W) x + m (b + W a): every output channel has its own m, every input channel its own a.
    """
    plain = copy.deepcopy(head)
    plain.__class__ = PLAIN_HEADS[type(head)]  # which is all that it lacks but these two
    del plain.ia, plain.im
    for level, conv in enumerate(head.m):
        weight, offset = conv.weight.flatten(1), head.ia[level].implicit.flatten()  # (C_out, C_in), (C_in,)
        bias = conv.bias + weight @ offset
        if isinstance(head, ImplicitDetect):  # the factors of the other head are idle
            factor = head.im[level].implicit.flatten()
            weight, bias = weight * factor[:, None], bias * factor
        plain.m[level] = with_weights(conv, weight.view_as(conv.weight), bias)
    return plain


PLAIN_HEADS = {ImplicitDetect: GridDetect, ImplicitSegment: Segment}
