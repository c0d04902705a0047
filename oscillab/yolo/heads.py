"""How do three feature maps become boxes?"""

import math

import torch
from torch import nn


class Detect(nn.Module):
    """The anchor-based head: one 1x1 convolution a level predicts three boxes for every cell.

    `anchors` is one tuple of (width, height, width, height, …) in pixels per level. As in the official files the buffer
    of that name holds them divided by the stride. `class_margin` belongs to the start of the class bias (YOLOv7: 0.99).
    """

    task = "detect"

    def __init__(self, channels_in, classes, anchors, strides=(8, 16, 32), class_margin=0.99999):
        super().__init__()
        self.classes = classes
        self.strides = tuple(strides)
        self.outputs = 5 + classes
        pixels = torch.tensor(anchors, dtype=torch.float32).view(len(strides), -1, 2)
        self.register_buffer("anchors", pixels / stride_column(self.strides, pixels))
        self.m = nn.ModuleList(nn.Conv2d(channels, pixels.shape[1] * self.outputs, 1) for channels in channels_in)
        self._start_biases(class_margin)

    def _start_biases(self, class_margin):
        """Set biases so that a new network expects 8 objects in a 640 pixel image and 0.6 of them in any class."""
        for conv, stride in zip(self.m, self.strides, strict=True):
            bias = conv.bias.data.view(-1, self.outputs)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            bias[:, 5 : 5 + self.classes] += math.log(0.6 / (self.classes - class_margin))

    def forward(self, maps):
        """Raw outputs, a list of (N, A, H, W, 5 + C), in train mode; in eval mode decoded boxes (N, A·ΣHW, 5 + C)."""
        raw = [self._grid_last(conv(x)) for conv, x in zip(self.m, maps, strict=True)]
        return raw if self.training else self.decode(raw)

    def decode(self, raw):
        """Boxes (N, A·ΣHW, 5 + C) in pixels with scores in 0..1, level by level, then anchor, row, column.

        Half-precision outputs are decoded in float32: a coordinate of 600 pixels has no fraction in bfloat16.
        """
        pixels = self.anchors_in_pixels()
        levels = zip(raw, pixels, self.strides, strict=True)
        return torch.cat([decode_level(x, anchors, stride, self.classes) for x, anchors, stride in levels], 1)

    def anchors_in_pixels(self):
        """The anchor boxes in pixels, (levels, anchors, 2)."""
        return self.anchors * stride_column(self.strides, self.anchors)

    def _grid_last(self, x):
        batch, _, height, width = x.shape
        return x.view(batch, -1, self.outputs, height, width).permute(0, 1, 3, 4, 2).contiguous()  # (N, A, H, W, 5 + C)


def stride_column(strides, like):
    """The strides as a tensor (levels, 1, 1) of `like`'s type and device."""
    return torch.tensor(strides, dtype=like.dtype, device=like.device).view(-1, 1, 1)


def decode_level(raw, anchors, stride, classes):
    """The boxes (N, A·H·W, 5 + C [+ more]) of one level's raw outputs (N, A, H, W, 5 + C [+ more]).

    Centre = (2σ(t) − 0.5 + cell) · stride, size = (2σ(t))² · anchor, scores σ(t). What follows the classes (mask
    coefficients) passes unchanged.
    """
    raw = raw if raw.dtype == torch.float64 else raw.float()
    batch, _, height, width, outputs = raw.shape
    xy, wh, scores, rest = raw.split((2, 2, 1 + classes, outputs - 5 - classes), -1)
    rows = torch.arange(height, dtype=raw.dtype, device=raw.device)
    columns = torch.arange(width, dtype=raw.dtype, device=raw.device)
    cells = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # (H, W, 2) of x, y
    centre = (2 * xy.sigmoid() - 0.5 + cells) * stride
    size = (2 * wh.sigmoid()) ** 2 * anchors.to(raw.dtype)[:, None, None]
    return torch.cat((centre, size, scores.sigmoid(), rest), -1).reshape(batch, -1, outputs)
