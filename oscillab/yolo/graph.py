"""Turn a table of rows into a network, and fold what training alone needs out of it.

YOLOv5 and YOLOv7 are both written as tables: a row names the rows it reads, its block and the block's arguments. Such a
table becomes one `Detector`, whose `state_dict` keys are the official `model.<row>.…`. `fuse` folds every BatchNorm into
its convolution, the branches of a `RepConv` into one, and YOLOv7's learned offsets and factors into its head; outputs
differ by rounding alone.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .blocks import Conv, RepConv
from .heads import GridDetect, ImplicitDetect, ImplicitSegment, Segment

PLAIN_HEADS = {ImplicitDetect: GridDetect, ImplicitSegment: Segment}


class Row(NamedTuple):
    """One line of a layer table."""

    source: int | tuple[int, ...]  # rows read; below 0: counted back from this row; a tuple: given as a list
    block: Any  # a Module's class, made as block(channels_in, *arguments)
    arguments: tuple = ()


class Detector(nn.Module):
    """A network from a layer table whose last row is a head.

    In train mode it returns the raw outputs, a list of (N, 3, H / s, W / s, 5 + classes); in eval mode decoded boxes (N,
    boxes, 5 + classes): centre x, centre y, width, height in pixels, objectness, class scores in 0..1. Where `task` is
    `segment`, either has 32 mask coefficients a box more and comes in a tuple with prototypes (N, 32, H / 4, W / 4).
    """

    def __init__(self, name: str, rows: Sequence[Row], *, names: Iterable[str]):
        super().__init__()
        self.name = name
        self.names = list(names)
        self.size: int | None = None  # pixels, of the longer side of the images that it was trained with
        self.sources, self.model = assemble(rows)
        self.classes, self.task = self.head.classes, self.head.task  # the task is detect or segment
        self.strides: tuple[int, ...] = self.head.strides  # pixels per cell of each level, (8, 16, 32)
        # Maps that a later row reads; every other map is let go as soon as the next row has used it.
        self.kept = {s for i, source in enumerate(self.sources) for s in as_tuple(source) if s != i - 1}

    def forward(self, images: Tensor) -> Any:
        """Return the head's output for `images` (N, 3, H, W), floats in 0..1, H and W multiples of the largest stride."""
        check_image_size(images, max(self.strides))
        maps: dict[int, Any] = {-1: images}
        for index, (source, layer) in enumerate(zip(self.sources, self.model, strict=True)):
            inputs = [maps[s] for s in source] if isinstance(source, tuple) else maps[source]
            if index - 1 not in self.kept:
                del maps[index - 1]
            maps[index] = layer(inputs)
        return maps[index]

    @property
    def head(self) -> Any:
        """The last row: the module that predicts boxes."""
        return self.model[-1]

    @property
    def anchors(self) -> Tensor:
        """The anchor boxes in pixels, (levels, anchors, 2), from the head's buffer."""
        return self.head.anchors_in_pixels()

    @property
    def end_layers(self) -> list[str]:
        """The names of the first convolution and of the head's predicting ones, which keep more bits."""
        first = next(name for name, layer in self.named_modules() if isinstance(layer, nn.Conv2d))
        return [first, *(f"model.{len(self.model) - 1}.m.{level}" for level in range(len(self.strides)))]


def assemble(rows: Sequence[Row]) -> tuple[list[int | tuple[int, ...]], nn.ModuleList]:
    """Return the absolute row number (or tuple of them) that each row reads, and the layers in a ModuleList."""
    channels: dict[int, Any] = {-1: 3}
    sources: list[int | tuple[int, ...]] = []
    layers = nn.ModuleList()
    for index, (source, block, arguments) in enumerate(rows):
        absolute = tuple(s if s >= 0 else index + s for s in as_tuple(source))
        channels_in = [channels[s] for s in absolute]
        listed = isinstance(source, tuple)
        layer = block(channels_in if listed else channels_in[0], *arguments)
        channels[index] = getattr(layer, "out_channels", None)  # a head has none: nothing reads it
        sources.append(absolute if listed else absolute[0])
        layers.append(layer)
    return sources, layers


def as_tuple(source: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return `source` as a tuple of row numbers."""
    return source if isinstance(source, tuple) else (source,)


def check_image_size(images: Tensor, stride: int) -> None:
    """Raise ValueError unless `images` is (N, 3, H, W) with H and W multiples of `stride`."""
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or shape[2] % stride or shape[3] % stride:
        raise ValueError(f"images must be (N, 3, H, W) with H and W multiples of {stride}, got {shape}")


class Fused(nn.Sequential):
    """A convolution with a bias and its activation, what is left of a `Conv` or a `RepConv`; `key` is the convolution's."""

    def __init__(self, key: str, conv: nn.Conv2d, activation: nn.Module):
        super().__init__(OrderedDict({key: conv, "act": activation}))


@torch.no_grad()
def fuse(model: Detector) -> Detector:
    """Return a copy of a float network, in eval mode, with every BatchNorm and re-parameterization folded away.

    Raises ValueError for a network whose convolutions are not plain ones (a quantized one) and for one fused already.
    """
    if is_fused(model):
        raise ValueError(f"this {model.name} is fused already")
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and type(layer) is not nn.Conv2d:
            raise ValueError(f"only a float network can be folded, but layer {name!r} is a {type(layer).__name__}")
    fused = copy.deepcopy(model).eval()
    if type(fused.head) in PLAIN_HEADS:
        fused.model[-1] = plain_head(fused.head)
    for parent in list(fused.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Conv):
                setattr(parent, name, Fused("conv", folded(child.conv, child.bn), child.act))
            elif isinstance(child, RepConv):  # a 1x1 kernel is a 3x3 one with a rim of zeros
                dense, point = folded(*child.rbr_dense), folded(*child.rbr_1x1)
                both = with_weights(dense, dense.weight + pad(point.weight, (1, 1, 1, 1)), dense.bias + point.bias)
                setattr(parent, name, Fused("rbr_reparam", both, child.act))
    return fused


def is_fused(model: nn.Module) -> bool:
    """Tell whether the network has gone through `fuse`."""
    return any(isinstance(layer, Fused) for layer in model.modules())


def folded(conv: Any, bn: Any) -> Any:
    """Return one convolution (a new one) that computes `bn(conv(x))` with the BatchNorm's running statistics.

    w' = gamma / sqrt(var + eps) · w,  b' = beta − gamma / sqrt(var + eps) · mean.
    """
    slope = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return with_weights(conv, conv.weight * slope.view(-1, 1, 1, 1), bn.bias - slope * bn.running_mean)


def with_weights(conv: Any, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return a convolution like `conv` with that weight (C_out, C_in, K, K) and bias (C_out,)."""
    made = copy.deepcopy(conv)
    made.weight, made.bias = nn.Parameter(weight), nn.Parameter(bias)
    return made


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
