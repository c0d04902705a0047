"""What does YOLOv5 (v6 and v7.0) look like, row by row?"""

import math

from .blocks import C3, SPPF, Concat, Conv, Upsample
from .graph import Row
from .heads import Detect, Segment

# (depth multiple, width multiple) of each size
SIZES = {"n": (0.33, 0.25), "s": (0.33, 0.50), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}

# width, height, … in pixels, one line per level of stride 8, 16, 32
ANCHORS = (
    (10, 13, 16, 30, 33, 23),
    (30, 61, 62, 45, 59, 119),
    (116, 90, 156, 198, 373, 326),
)


def rows(size, classes, *, segment=False):
    """The layer table of YOLOv5 `size` (n, s, m, l, x) for `classes` classes, a list of `Row`, with masks if asked."""
    depth_multiple, width_multiple = SIZES[size]
    prototype_channels = (scaled_width(256, width_multiple),) if segment else ()

    def conv(source, width, *arguments):
        return Row(source, Conv, (scaled_width(width, width_multiple), *arguments))

    def c3(source, width, depth, shortcut=True):
        return Row(source, C3, (scaled_width(width, width_multiple), scaled_depth(depth, depth_multiple), shortcut))

    return [
        conv(-1, 64, 6, 2, 2),  # 0: stride 2
        conv(-1, 128, 3, 2),  # 1: stride 4
        c3(-1, 128, 3),
        conv(-1, 256, 3, 2),  # 3: stride 8
        c3(-1, 256, 6),
        conv(-1, 512, 3, 2),  # 5: stride 16
        c3(-1, 512, 9),
        conv(-1, 1024, 3, 2),  # 7: stride 32
        c3(-1, 1024, 3),
        Row(-1, SPPF, (scaled_width(1024, width_multiple),)),
        conv(-1, 512),  # 10: from here down the pyramid
        Row(-1, Upsample),
        Row((-1, 6), Concat),
        c3(-1, 512, 3, False),
        conv(-1, 256),  # 14
        Row(-1, Upsample),
        Row((-1, 4), Concat),
        c3(-1, 256, 3, False),  # 17: stride 8, to the head; from here up again
        conv(-1, 256, 3, 2),
        Row((-1, 14), Concat),
        c3(-1, 512, 3, False),  # 20: stride 16, to the head
        conv(-1, 512, 3, 2),
        Row((-1, 10), Concat),
        c3(-1, 1024, 3, False),  # 23: stride 32, to the head
        Row((17, 20, 23), Segment if segment else Detect, (classes, ANCHORS, *prototype_channels)),
    ]


def scaled_width(width, multiple):
    """The channels of a layer: `width` times the multiple, rounded up to a multiple of 8.

    >>> scaled_width(64, 0.25), scaled_width(128, 1.25)
    (16, 160)
    """
    return math.ceil(width * multiple / 8) * 8


def scaled_depth(depth, multiple):
    """The bottlenecks of a block: `depth` times the multiple, at least 1, halves rounded to even.

    >>> scaled_depth(3, 0.33), scaled_depth(9, 0.67)
    (1, 6)
    """
    return max(round(depth * multiple), 1) if depth > 1 else depth
