"""Turn a table of rows into a network.

YOLOv5 and YOLOv7 are both written as tables: a row names the rows it reads, its block and the block's arguments. Such a
table becomes one `Detector`, whose `state_dict` keys are the official `model.<row>.…`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn


class Row(NamedTuple):
    """One line of a layer table."""

    source: int | tuple[int, ...]  # rows read; below 0: counted back from this row; a tuple: given as a list
    block: Any  # a Module's class, made as block(channels_in, *arguments)
    arguments: tuple = ()


class Detector(nn.Module):
    """A network from a layer table whose last row is a head.

    In train mode it returns the raw outputs, a list of (N, 3, H / s, W / s, 5 + classes); in eval mode the decoded
    boxes (N, boxes, 5 + classes): centre x, centre y, width, height in pixels, objectness, class scores in 0..1. Where
    `task` is `segment`, either comes with 32 mask coefficients a box more, in a tuple with the mask prototypes
    (N, 32, H / 4, W / 4).
    """

    def __init__(self, name: str, rows: Sequence[Row], *, names: Iterable[str]):
        super().__init__()
        self.name = name
        self.names = list(names)
        self.size: int | None = None  # pixels, of the longer side of the images that it was trained with
        self.sources, self.model = assemble(rows)
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
    def classes(self) -> int:
        """The number of classes."""
        return self.head.classes

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level, (8, 16, 32)."""
        return self.head.strides

    @property
    def anchors(self) -> Tensor:
        """The anchor boxes in pixels, (levels, anchors, 2), from the head's buffer."""
        return self.head.anchors_in_pixels()

    @property
    def task(self) -> str:
        """`detect` or `segment`."""
        return self.head.task

    @property
    def end_layers(self) -> list[str]:
        """The names of the first convolution and of the head's predicting ones, which keep more bits."""
        first = next(name for name, layer in self.named_modules() if isinstance(layer, nn.Conv2d))
        last = len(self.model) - 1
        return [first, *(f"model.{last}.m.{level}" for level in range(len(self.strides)))]


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
