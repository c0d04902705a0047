"""Define the building blocks of YOLO networks.

Every block is made as `block(channels_in, *arguments)` and tells its `out_channels`, so that a table of rows can be
turned into a network without a special case (`graph.py`). Attribute names are the official ones: they are the keys of
a checkpoint.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# The official networks set both on every BatchNorm after construction. The eps matters: a trained YOLOv5n holds running
# variances down to 0.0018, where PyTorch's own 1e-5 would change the output.
BN_EPS = 1e-3
BN_MOMENTUM = 0.03


def convolution_and_bn(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1, padding: int | None = None
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Return a convolution without bias and its BatchNorm; a `padding` of None keeps the size at stride 1."""
    padding = kernel // 2 if padding is None else padding
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
    return conv, nn.BatchNorm2d(channels_out, eps=BN_EPS, momentum=BN_MOMENTUM)


class Conv(nn.Module):
    """Convolution, BatchNorm, activation: (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        padding: int | None = None,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ):
        super().__init__()
        self.out_channels = channels_out
        self.conv, self.bn = convolution_and_bn(channels_in, channels_out, kernel, stride, padding)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated map."""
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution, added to their input where `shortcut` is set: (N, C, H, W) to the same."""

    def __init__(self, channels: int, shortcut: bool = True):
        super().__init__()
        self.out_channels = channels
        self.shortcut = shortcut
        self.cv1 = Conv(channels, channels, 1)
        self.cv2 = Conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the refined map."""
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C3(nn.Module):
    """A cross-stage block: one half passes `depth` bottlenecks, the other none, a 1x1 convolution joins them."""

    def __init__(self, channels_in: int, channels_out: int, depth: int = 1, shortcut: bool = True):
        super().__init__()
        self.out_channels = channels_out
        hidden = channels_out // 2
        self.cv1 = Conv(channels_in, hidden, 1)
        self.cv2 = Conv(channels_in, hidden, 1)
        self.cv3 = Conv(2 * hidden, channels_out, 1)
        self.m = nn.Sequential(*(Bottleneck(hidden, shortcut) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the joined map, (N, C_out, H, W)."""
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class SPPF(nn.Module):
    """Spatial pyramid pooling: three 5x5 poolings in a row see what windows of 5, 9 and 13 see side by side."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 5):
        super().__init__()
        self.out_channels = channels_out
        hidden = channels_in // 2
        self.cv1 = Conv(channels_in, hidden, 1)
        self.cv2 = Conv(4 * hidden, channels_out, 1)
        self.m = nn.MaxPool2d(kernel, 1, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled map, (N, C_out, H, W)."""
        pooled = [self.cv1(x)]
        for _ in range(3):
            pooled.append(self.m(pooled[-1]))
        return self.cv2(torch.cat(pooled, 1))


class SPPCSPC(nn.Module):
    """Spatial pyramid pooling in a cross-stage block: (N, C_in, H, W) to (N, C_out, H, W)."""

    def __init__(self, channels_in: int, channels_out: int, kernels: Sequence[int] = (5, 9, 13)):
        super().__init__()
        self.out_channels = hidden = channels_out  # half of it, doubled by the official expansion of 0.5
        self.cv1 = Conv(channels_in, hidden, 1)
        self.cv2 = Conv(channels_in, hidden, 1)
        self.cv3 = Conv(hidden, hidden, 3)
        self.cv4 = Conv(hidden, hidden, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(kernel, 1, kernel // 2) for kernel in kernels)
        self.cv5 = Conv(4 * hidden, hidden, 1)
        self.cv6 = Conv(hidden, hidden, 3)
        self.cv7 = Conv(2 * hidden, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled map, joined with one that was not."""
        y = self.cv4(self.cv3(self.cv1(x)))
        pooled = self.cv6(self.cv5(torch.cat([y, *(pool(y) for pool in self.m)], 1)))
        return self.cv7(torch.cat((pooled, self.cv2(x)), 1))


class RepConv(nn.Module):
    """A 3x3 and a 1x1 convolution side by side, added, then SiLU; `graph.fuse` makes one 3x3 convolution of them."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.out_channels = channels_out
        self.act = nn.SiLU()
        self.rbr_dense = nn.Sequential(*convolution_and_bn(channels_in, channels_out, 3))
        self.rbr_1x1 = nn.Sequential(*convolution_and_bn(channels_in, channels_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum."""
        return self.act(self.rbr_dense(x) + self.rbr_1x1(x))


class Pool(nn.MaxPool2d):
    """The largest value of each window: (N, C, H, W) to (N, C, H / stride, W / stride)."""

    def __init__(self, channels_in: int, kernel: int = 2, stride: int = 2):
        super().__init__(kernel, stride, kernel // 2 if stride == 1 else 0)
        self.out_channels = channels_in


class Upsample(nn.Upsample):
    """Nearest-neighbour enlargement: (N, C, H, W) to (N, C, 2 H, 2 W)."""

    def __init__(self, channels_in: int):
        super().__init__(scale_factor=2.0, mode="nearest")
        self.out_channels = channels_in


class Concat(nn.Module):
    """A list of maps of one size, joined along the channels in the order given."""

    def __init__(self, channels_in: Sequence[int]):
        super().__init__()
        self.out_channels = sum(channels_in)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return the joined map, (N, sum of C, H, W)."""
        return torch.cat(maps, 1)
