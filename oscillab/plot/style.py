"""Make every figure of one look: its size, axes, labels, headline and PNG bytes; colours of methods are in `methods`.

Figures are made without pyplot, so that drawing changes nothing outside the figure.
"""

from collections.abc import Sequence
from io import BytesIO
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

INK = "#333333"
QUIET = "#8a8a8a"  # reference lines and what is not the point
MAP = "cividis"
DPI = 96
ABOVE = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2, "borderaxespad": 0.2}  # a legend over no curve


class InlineFigure(Figure):
    """A matplotlib Figure that shows itself in a notebook, whether or not pyplot was ever imported."""

    def png(self) -> bytes:
        """Return PNG bytes of 256 colours, a third of the size; the same drawing gives the same bytes."""
        canvas, file = FigureCanvasAgg(self), BytesIO()
        canvas.draw()
        with_256_colors(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])).save(file, format="png")
        return file.getvalue()

    _repr_png_ = png


def with_256_colors(image: Image.Image) -> Image.Image:
    """Return an RGB image with a palette: drawings colour for colour, photographs, which need more colours, dithered."""
    cover: dict[str, Any] = {"colors": 256, "method": Image.Quantize.MAXCOVERAGE}  # keeps the colours of small marks
    plain = image.quantize(**cover, dither=Image.Dither.NONE)
    if np.abs(np.asarray(image, np.int16) - np.asarray(plain.convert("RGB"), np.int16)).max() < 24:
        return plain
    palette = image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST).quantize(**cover, kmeans=1)
    return image.quantize(256, palette=palette)


def new_figure(
    width: float = 7.0, height: float = 3.6, *, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[InlineFigure, np.ndarray]:
    """Return a new white figure of so many inches, and its axes as an array (rows, columns)."""
    figure = InlineFigure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return _without_frames(figure), axes


def new_mosaic(width: float, height: float, layout: Sequence[Sequence[str]]) -> tuple[InlineFigure, dict[str, Axes]]:
    """Return a new white figure of so many inches, and its axes by name, laid out in rows of names."""
    figure = InlineFigure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplot_mosaic([list(row) for row in layout])
    return _without_frames(figure), axes


def _without_frames(figure: InlineFigure) -> InlineFigure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(QUIET)
        axes.tick_params(colors=INK, labelsize=9)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure


def set_labels(axes: Axes, *, x: str, y: str, title: str | None = None) -> Axes:
    """Give the axes labels that carry their units and a title that starts at the left; return them."""
    axes.set_xlabel(x, color=INK, fontsize=10)
    axes.set_ylabel(y, color=INK, fontsize=10)
    if title:
        axes.set_title(title, loc="left", color=INK, fontsize=10.5)
    return axes


def set_headline(figure: InlineFigure, text: str) -> InlineFigure:
    """Put one sentence that states what is seen above the figure, in as many lines as its width asks for; return it."""
    lines = balanced_lines(text, int(11 * figure.get_figwidth()))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", color=INK, fontsize=11.5, fontweight="bold")
    return figure


def balanced_lines(text: str, most: int) -> list[str]:
    """Return the text in as few lines as `most` characters a line allow, none much shorter than the others.

    >>> balanced_lines("one two three four", 14)
    ['one two', 'three four']
    """
    count = len(wrap(text, most))
    return next(lines for width in range(1, most + 1) if len(lines := wrap(text, width)) == count)


def text_figure(text: str) -> InlineFigure:
    """Return a figure as high as the sentence that it holds: what a widget shows where it cannot draw."""
    lines = balanced_lines(text, 63)
    figure, axes = new_figure(7.0, 0.4 + 0.2 * len(lines))
    axes[0, 0].axis("off")
    axes[0, 0].text(0, 0.5, "\n".join(lines), va="center", color=INK, fontsize=12)
    return figure
