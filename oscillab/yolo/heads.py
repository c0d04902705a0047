"""Turn three feature maps into boxes, and masks.

`Detect` is YOLOv5's head; `GridDetect` YOLOv7's, which differs in what its files hold; `ImplicitDetect` that of
YOLOv7's training graph. `Segment` and `ImplicitSegment` predict mask coefficients besides: an object's mask is the sum
of the image's prototypes, each times the object's coefficient.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import Conv, Upsample

Anchors = Sequence[Sequence[int]]  # a tuple of (width, height, width, height, …) in pixels a level
COEFFICIENTS = 32  # prototypes of an image, and mask coefficients of a box


class Detect(nn.Module):
    """The anchor-based head: one 1x1 convolution a level predicts three boxes for every cell."""

    task = "detect"
    coefficients = 0
    class_margin = 0.99999  # of the start of the class bias

    anchors: Tensor  # (levels, A, 2), divided by the stride
    m: Any  # its convolutions, a ModuleList

    def __init__(
        self, channels_in: Sequence[int], classes: int, anchors: Anchors, strides: Sequence[int] = (8, 16, 32)
    ):
        super().__init__()
        self.classes = classes
        self.strides = tuple(strides)
        self.outputs = 5 + classes + self.coefficients
        pixels = torch.tensor(anchors, dtype=torch.float32).view(len(strides), -1, 2)
        self.register_buffer("anchors", pixels / stride_column(self.strides, pixels))
        self.m = nn.ModuleList(nn.Conv2d(channels, pixels.shape[1] * self.outputs, 1) for channels in channels_in)
        self._start_biases()

    def _start_biases(self) -> None:
        """Set biases so that a new network expects 8 objects in a 640 pixel image and 0.6 of them in any class."""
        for conv, stride in zip(self.m, self.strides, strict=True):
            bias = conv.bias.data.view(-1, self.outputs)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            bias[:, 5 : 5 + self.classes] += math.log(0.6 / (self.classes - self.class_margin))

    def forward(self, maps: Sequence[Tensor]) -> Any:
        """Return raw outputs, a list of (N, A, H, W, 5 + C), in train mode; in eval mode decoded boxes (N, A·ΣHW, 5 + C)."""
        raw = []
        for level, x in enumerate(maps):
            rows = self.predict(level, x).view(len(x), -1, self.outputs, *x.shape[2:])
            raw.append(rows.permute(0, 1, 3, 4, 2).contiguous())
        return raw if self.training else self.decode(raw)

    def predict(self, level: int, x: Tensor) -> Tensor:
        """Return the predictions (N, A·(5 + C), H, W) of one level's map."""
        return self.m[level](x)

    def decode(self, raw: Sequence[Tensor]) -> Tensor:
        """Return boxes (N, A·ΣHW, 5 + C) in pixels with scores in 0..1, level by level, then anchor, row, column.

        Half-precision outputs are decoded in float32: a coordinate of 600 pixels has no fraction in bfloat16.
        """
        pixels = self.anchors_in_pixels()
        levels = zip(raw, pixels, self.strides, strict=True)
        return torch.cat([decode_level(x, anchors, stride, self.classes) for x, anchors, stride in levels], 1)

    def anchors_in_pixels(self) -> Tensor:
        """Return the anchor boxes in pixels, (levels, anchors, 2)."""
        return self.anchors * stride_column(self.strides, self.anchors)

    def set_anchors(self, pixels: Any) -> None:
        """Take other anchor boxes, (levels, anchors, 2) in pixels."""
        pixels = torch.as_tensor(pixels, dtype=self.anchors.dtype, device=self.anchors.device)
        if pixels.shape != self.anchors.shape:
            raise ValueError(f"anchors must be {tuple(self.anchors.shape)}, got {tuple(pixels.shape)}")
        self.anchors.copy_(pixels / stride_column(self.strides, pixels))


class GridDetect(Detect):
    """YOLOv7's head: another start of the class bias, and a buffer `anchor_grid` of the anchors in pixels besides."""

    class_margin = 0.99
    anchor_grid: Tensor

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        # Nothing here reads it: it is in the official files, and whoever takes ours there finds it.
        self.register_buffer("anchor_grid", self.anchors_in_pixels()[:, None, :, None, None])

    def set_anchors(self, pixels: Any) -> None:
        """Take other anchor boxes, (levels, anchors, 2) in pixels, in both buffers."""
        super().set_anchors(pixels)
        self.anchor_grid.copy_(self.anchors_in_pixels().view_as(self.anchor_grid))


class ImplicitDetect(GridDetect):
    """The head of YOLOv7's training graph (official: IDetect): a learned offset before, a factor after each convolution."""

    ia: Any  # of `Implicit`, a level each
    im: Any

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.ia = nn.ModuleList(Implicit(conv.in_channels, start=0.0) for conv in self.m)
        self.im = nn.ModuleList(Implicit(conv.out_channels, start=1.0) for conv in self.m)

    def predict(self, level: int, x: Tensor) -> Tensor:
        """Return the predictions (N, A·(5 + C), H, W) of one level's map."""
        return self.m[level](x + self.ia[level].implicit) * self.im[level].implicit


class Implicit(nn.Module):
    """A learned number a channel, (1, C, 1, 1), that starts near `start`."""

    def __init__(self, channels: int, *, start: float):
        super().__init__()
        self.implicit = nn.Parameter(start + 0.02 * torch.randn(1, channels, 1, 1))


class Segment(Detect):
    """The head that predicts masks too: rows of 5 + C + 32, and prototypes (N, 32, H / 4, W / 4) from the finest map."""

    task = "segment"
    coefficients = COEFFICIENTS

    def __init__(self, channels_in: Sequence[int], classes: int, anchors: Anchors, prototype_channels: int):
        super().__init__(channels_in, classes, anchors)
        self._add_implicit()  # before the prototypes, as in the official files
        self.proto = Prototypes(channels_in[0], prototype_channels)

    def _add_implicit(self) -> None: ...

    def forward(self, maps: Sequence[Tensor]) -> tuple[Any, Tensor]:
        """Return raw outputs, or in eval mode decoded boxes, and the prototypes."""
        return super().forward(maps), self.proto(maps[0])


class ImplicitSegment(Segment):
    """YOLOv7-seg's head (official: ISegment): a learned offset before each convolution; nothing reads the factors `im`."""

    ia: Any  # of `Implicit`, a level each
    im: Any

    def _add_implicit(self) -> None:
        idle = len(self.anchors[0]) * (5 + self.classes)
        self.ia = nn.ModuleList(Implicit(conv.in_channels, start=0.0) for conv in self.m)
        self.im = nn.ModuleList(Implicit(idle, start=1.0) for _ in self.m)

    def predict(self, level: int, x: Tensor) -> Tensor:
        """Return the predictions (N, A·(5 + C + 32), H, W) of one level's map."""
        return self.m[level](x + self.ia[level].implicit)


class Prototypes(nn.Module):
    """The mask prototypes (N, 32, 2 H, 2 W) of the finest map (N, C, H, W)."""

    def __init__(self, channels_in: int, hidden: int):
        super().__init__()
        self.cv1 = Conv(channels_in, hidden, 3)
        self.upsample = Upsample(hidden)
        self.cv2 = Conv(hidden, hidden, 3)
        self.cv3 = Conv(hidden, COEFFICIENTS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the prototypes."""
        return self.cv3(self.cv2(self.upsample(self.cv1(x))))


def stride_column(strides: Sequence[int], like: Tensor) -> Tensor:
    """Return the strides as a tensor (levels, 1, 1) of `like`'s type and device."""
    return like.new_tensor(strides).view(-1, 1, 1)


def in_full_precision(x: Tensor) -> Tensor:
    """Return `x` in float32, or in float64 where it is so already."""
    return x if x.dtype == torch.float64 else x.float()


def decode_level(raw: Tensor, anchors: Tensor, stride: int, classes: int) -> Tensor:
    """Return boxes (N, A·H·W, 5 + C [+ more]) from one level's raw outputs (N, A, H, W, 5 + C [+ more]).

    Centre = (2σ(t) − 0.5 + cell) · stride, size = (2σ(t))² · anchor, scores σ(t). What follows the classes (mask
    coefficients) passes unchanged.
    """
    raw = in_full_precision(raw)
    batch, _, height, width, outputs = raw.shape
    xy, wh, scores, rest = raw.split((2, 2, 1 + classes, outputs - 5 - classes), -1)
    rows = torch.arange(height, dtype=raw.dtype, device=raw.device)
    columns = torch.arange(width, dtype=raw.dtype, device=raw.device)
    cells = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # (H, W, 2) of x, y
    centre = (2 * xy.sigmoid() - 0.5 + cells) * stride
    size = (2 * wh.sigmoid()) ** 2 * anchors.to(raw.dtype)[:, None, None]
    return torch.cat((centre, size, scores.sigmoid(), rest), -1).reshape(batch, -1, outputs)
