"""Describe YOLOv5 (v6 and v7.0), YOLOv7 and YOLOv7-tiny as tables of rows.

YOLOv7's *training* graph, which a study quantizes, predicts through learned offsets and factors (`ImplicitDetect`). The
*released* files `yolov7.pt` and `yolov7-tiny.pt` hold the same network with these folded away (`GridDetect`); YOLOv7's
`RepConv` rows have both branches still. `graph.fuse` folds the first. YOLOv7-seg comes from the authors' u7
branch, which has plain convolutions in place of `RepConv`; there a join lists its newest row first.
"""

import math
from functools import partial
from typing import Any

from torch import nn

from .blocks import C3, SPPCSPC, SPPF, Concat, Conv, Pool, RepConv, Upsample
from .graph import Row
from .heads import Detect, GridDetect, ImplicitDetect, ImplicitSegment, Segment

# (depth multiple, width multiple) of each size
SIZES = {"n": (0.33, 0.25), "s": (0.33, 0.50), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}

# width, height, … in pixels, of each level of stride 8, 16, 32; YOLOv7-tiny has YOLOv5's
V5_ANCHORS = ((10, 13, 16, 30, 33, 23), (30, 61, 62, 45, 59, 119), (116, 90, 156, 198, 373, 326))
V7_ANCHORS = ((12, 16, 19, 36, 40, 28), (36, 75, 76, 55, 72, 146), (142, 110, 192, 243, 459, 401))
# What the last rows of YOLOv7 are made of: (the head, the rows before it, more of the head's arguments)
FORMS: dict[str, tuple[Any, Any, tuple]] = {
    "training": (ImplicitDetect, RepConv, ()),
    "deploy": (GridDetect, RepConv, ()),
    "segment": (ImplicitSegment, partial(Conv, kernel=3), (256,)),
}


def v5_rows(size: str, classes: int, *, segment: bool = False) -> list[Row]:
    """Return the layer table of YOLOv5 `size` (n, s, m, l, x) for `classes` classes, a list of `Row`, with masks if asked."""
    depth, wide = SIZES[size]

    def v5_conv(width: int, *arguments: Any) -> Row:
        return Row(-1, Conv, (scaled_width(width, wide), *arguments))

    def c3(width: int, count: int, shortcut: bool = True) -> Row:
        return Row(-1, C3, (scaled_width(width, wide), scaled_depth(count, depth), shortcut))

    rows = [v5_conv(64, 6, 2, 2), v5_conv(128, 3, 2), c3(128, 3)]  # to 2: stride 2, 4, 4
    for width, count in ((256, 6), (512, 9), (1024, 3)):  # to 8: stride 8, 16, 32
        rows += [v5_conv(width, 3, 2), c3(width, count)]
    rows += [Row(-1, SPPF, (scaled_width(1024, wide),))]
    for width, joined in ((512, 6), (256, 4)):  # to 17: down the pyramid, to stride 8
        rows += [v5_conv(width), Row(-1, Upsample), Row((-1, joined), Concat), c3(width, 3, False)]
    for width, joined in ((256, 14), (512, 10)):  # to 20 and 23: up again, to stride 16 and 32
        rows += [v5_conv(width, 3, 2), Row((-1, joined), Concat), c3(2 * width, 3, False)]
    prototypes = (scaled_width(256, wide),) if segment else ()
    return [*rows, Row((17, 20, 23), Segment if segment else Detect, (classes, V5_ANCHORS, *prototypes))]


def scaled_width(width: int, multiple: float) -> int:
    """Return the channels of a layer: `width` times the multiple, rounded up to a multiple of 8."""
    return math.ceil(width * multiple / 8) * 8


def scaled_depth(depth: int, multiple: float) -> int:
    """Return the bottlenecks of a block: `depth` times the multiple, at least 1, halves rounded to even."""
    return max(round(depth * multiple), 1)


def v7_rows(form: str, classes: int) -> list[Row]:
    """Return the layer table of YOLOv7 in one of the `FORMS` for `classes` classes, a list of `Row`."""
    head, before, more = FORMS[form]
    return [
        *(conv(-1, 32, 3), conv(-1, 64, 3, 2), conv(-1, 64, 3), conv(-1, 128, 3, 2)),  # 0: stride 1, 2, 2, 4
        *stage(64, 256),
        *(*halve(128), *stage(128, 512)),  # to 24: stride 8
        *(*halve(256), *stage(256, 1024)),  # to 37: stride 16
        *(*halve(512), *stage(256, 1024)),  # to 50: stride 32
        Row(-1, SPPCSPC, (512,)),  # 51: from here down the pyramid
        *(*widen(256, 37), *head_stage(256)),  # to 63
        *(*widen(128, 24), *head_stage(128)),  # to 75: from here up again
        *(*halve(128, 63), *head_stage(256)),  # to 88
        *(*halve(256, 51), *head_stage(512)),  # to 101
        *(Row(75, before, (256,)), Row(88, before, (512,)), Row(101, before, (1024,))),
        Row((102, 103, 104), head, (classes, V7_ANCHORS, *more)),
    ]


def conv(source: int, width: int, kernel: int = 1, stride: int = 1) -> Row:
    """Return the row of one convolution with SiLU."""
    return Row(source, Conv, (width, kernel, stride))


def stage(hidden: int, width: int) -> list[Row]:
    """Return eight rows (ELAN): two branches of one map, one of them four convolutions deep, joined at four depths."""
    deep = [conv(-1, hidden, 3)] * 4
    return [conv(-1, hidden), conv(-2, hidden), *deep, Row((-1, -3, -5, -6), Concat), conv(-1, width)]


def head_stage(width: int) -> list[Row]:
    """Return eight rows (ELAN of the pyramid): as `stage`, but with half the width inside, joined at every depth."""
    deep = [conv(-1, width // 2, 3)] * 4
    return [conv(-1, width), conv(-2, width), *deep, Row((-1, -2, -3, -4, -5, -6), Concat), conv(-1, width)]


def halve(width: int, *joined: int) -> list[Row]:
    """Return five rows to half the resolution, by pooling and by a strided convolution, joined (with the rows `joined`)."""
    pooled = [Row(-1, Pool), conv(-1, width)]
    return [*pooled, conv(-3, width), conv(-1, width, 3, 2), Row((-1, -3, *joined), Concat)]


def widen(width: int, joined: int) -> list[Row]:
    """Return four rows to twice the resolution, joined with the map of the row `joined`."""
    return [conv(-1, width), Row(-1, Upsample), conv(joined, width), Row((-1, -2), Concat)]


def v7_tiny_rows(form: str, classes: int) -> list[Row]:
    """Return the layer table of YOLOv7-tiny, `training` or `deploy`, for `classes` classes, a list of `Row`."""
    return [
        *(tiny(-1, 32, 3, 2), tiny(-1, 64, 3, 2)),  # 0: stride 2, 4
        *tiny_stage(32, 64),
        *(Row(-1, Pool), *tiny_stage(64, 128)),  # to 14: stride 8
        *(Row(-1, Pool), *tiny_stage(128, 256)),  # to 21: stride 16
        *(Row(-1, Pool), *tiny_stage(256, 512)),  # to 28: stride 32
        *(tiny(-1, 256), tiny(-2, 256)),  # 30: pooled in three sizes
        *(Row(-1, Pool, (5, 1)), Row(-2, Pool, (9, 1)), Row(-3, Pool, (13, 1)), Row((-1, -2, -3, -4), Concat)),
        *(tiny(-1, 256), Row((-1, -7), Concat), tiny(-1, 256)),  # 37: from here down the pyramid
        *(tiny(-1, 128), Row(-1, Upsample), tiny(21, 128), Row((-1, -2), Concat), *tiny_stage(64, 128)),  # to 47
        *(tiny(-1, 64), Row(-1, Upsample), tiny(14, 64), Row((-1, -2), Concat), *tiny_stage(32, 64)),  # to 57
        *(tiny(-1, 128, 3, 2), Row((-1, 47), Concat), *tiny_stage(64, 128)),  # to 65
        *(tiny(-1, 256, 3, 2), Row((-1, 37), Concat), *tiny_stage(128, 256)),  # to 73
        *(tiny(57, 128, 3), tiny(65, 256, 3), tiny(73, 512, 3)),
        Row((74, 75, 76), FORMS[form][0], (classes, V5_ANCHORS)),
    ]


def tiny(source: int, width: int, kernel: int = 1, stride: int = 1) -> Row:
    """Return the row of one convolution with a leaky ReLU."""
    return Row(source, Conv, (width, kernel, stride, None, partial(nn.LeakyReLU, 0.1)))


def tiny_stage(hidden: int, width: int) -> list[Row]:
    """Return six rows: two branches of one map, one of them two convolutions deep, joined at every depth."""
    deep = [tiny(-1, hidden, 3)] * 2
    return [tiny(-1, hidden), tiny(-2, hidden), *deep, Row((-1, -2, -3, -4), Concat), tiny(-1, width)]
