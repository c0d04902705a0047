"""What do YOLOv7 and YOLOv7-tiny look like, row by row?

The *training* graph, which a study quantizes, predicts through learned offsets and factors (`ImplicitDetect`). The
*released* files `yolov7.pt` and `yolov7-tiny.pt` hold the same network with these folded away (`GridDetect`); YOLOv7's
`RepConv` rows have both branches still. `fuse.py` leads from one to the other. YOLOv7-seg comes from the authors' u7
branch, which has plain convolutions in place of `RepConv`. A join lists its newest row first.
"""

from functools import partial

from torch import nn

from .blocks import SPPCSPC, Concat, Conv, Pool, RepConv, Upsample
from .graph import Row
from .heads import GridDetect, ImplicitDetect, ImplicitSegment
from .v5 import ANCHORS as TINY_ANCHORS

# width, height, … in pixels, one line per level of stride 8, 16, 32; YOLOv7-tiny has YOLOv5's
ANCHORS = (
    (12, 16, 19, 36, 40, 28),
    (36, 75, 76, 55, 72, 146),
    (142, 110, 192, 243, 459, 401),
)
PROTOTYPE_CHANNELS = 256
# What the last rows are made of: (the head, the rows before it)
FORMS = {
    "training": (ImplicitDetect, RepConv),
    "deploy": (GridDetect, RepConv),
    "segment": (ImplicitSegment, partial(Conv, kernel=3)),
}


def rows(form, classes):
    """The layer table of YOLOv7 in one of the `FORMS` for `classes` classes, a list of `Row`."""
    head, before = FORMS[form]
    more = (PROTOTYPE_CHANNELS,) if form == "segment" else ()
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
        Row((102, 103, 104), head, (classes, ANCHORS, *more)),
    ]


def conv(source, width, kernel=1, stride=1):
    """The row of one convolution with SiLU."""
    return Row(source, Conv, (width, kernel, stride))


def stage(hidden, width):
    """Eight rows (ELAN): two branches of one map, one of them four convolutions deep, joined at four depths."""
    deep = [conv(-1, hidden, 3)] * 4
    return [conv(-1, hidden), conv(-2, hidden), *deep, Row((-1, -3, -5, -6), Concat), conv(-1, width)]


def head_stage(width):
    """Eight rows (ELAN of the pyramid): as `stage`, but with half the width inside, joined at every depth."""
    deep = [conv(-1, width // 2, 3)] * 4
    return [conv(-1, width), conv(-2, width), *deep, Row((-1, -2, -3, -4, -5, -6), Concat), conv(-1, width)]


def halve(width, *joined):
    """Five rows to half the resolution, by pooling and by a strided convolution, joined (with the rows `joined`)."""
    pooled = [Row(-1, Pool), conv(-1, width)]
    return [*pooled, conv(-3, width), conv(-1, width, 3, 2), Row((-1, -3, *joined), Concat)]


def widen(width, joined):
    """Four rows to twice the resolution, joined with the map of the row `joined`."""
    return [conv(-1, width), Row(-1, Upsample), conv(joined, width), Row((-1, -2), Concat)]


def tiny_rows(form, classes):
    """The layer table of YOLOv7-tiny, `training` or `deploy`, for `classes` classes, a list of `Row`."""
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
        Row((74, 75, 76), FORMS[form][0], (classes, TINY_ANCHORS)),
    ]


def tiny(source, width, kernel=1, stride=1):
    """The row of one convolution with a leaky ReLU."""
    return Row(source, Conv, (width, kernel, stride, None, partial(nn.LeakyReLU, 0.1)))


def tiny_stage(hidden, width):
    """Six rows: two branches of one map, one of them two convolutions deep, joined at every depth."""
    deep = [tiny(-1, hidden, 3)] * 2
    return [tiny(-1, hidden), tiny(-2, hidden), *deep, Row((-1, -2, -3, -4), Concat), tiny(-1, width)]
