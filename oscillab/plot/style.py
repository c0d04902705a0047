"""How does a method look, in every figure of the repository?

One table fixes label, colour, dash and marker (seaborn's `colorblind` palette); the rest of this file is the paper that
the figures are drawn on. Figures are made without pyplot, so that drawing changes nothing outside the figure.
"""

from dataclasses import dataclass
from io import BytesIO
from textwrap import wrap

from matplotlib.figure import Figure
from PIL import Image, ImageChops


@dataclass(frozen=True)
class MethodStyle:
    """How one method is drawn."""

    label: str
    color: str
    dash: str | tuple
    marker: str

    def line(self, **more):
        """Keyword arguments for a line of this method."""
        return {"color": self.color, "linestyle": self.dash, "label": self.label, "linewidth": 1.6} | more

    def points(self, **more):
        """Keyword arguments for the points of this method."""
        return {"color": self.color, "marker": self.marker, "linestyle": "none"} | more


METHODS = {
    "fp32": MethodStyle("FP32", "#7f7f7f", "solid", ""),
    "ptq": MethodStyle("PTQ", "#949494", (0, (1, 1)), "x"),
    "lsq": MethodStyle("LSQ", "#0173b2", "solid", "o"),
    "dampening": MethodStyle("Dampening", "#cc78bc", (0, (5, 1)), "v"),
    "freezing": MethodStyle("Freezing", "#8c5a2b", (0, (3, 1, 1, 1)), "P"),
    "ema": MethodStyle("EMA", "#de8f05", "dashed", "s"),
    "lsq+qc": MethodStyle("LSQ+QC", "#029e73", "dotted", "^"),
    "ema+qc": MethodStyle("EMA+QC", "#d55e00", "dashdot", "D"),
}
WORDS = {  # of a method's name in an ablation, where no look of its own is asked for
    "scale_freezing": "Scale freezing",
    "q_ema": "Q-EMA",
    "per_channel": "Per-channel LSQ",
    "lsq_plus": "LSQ+ offset",
    "rounded_mask": "Rounded mask",
    "slow_step_sizes": "Slow step sizes",
    "ema_weights": "EMA of weights",
    "ema_step_sizes": "EMA of step sizes",
    "ema_buffers": "EMA of BN statistics",
    "qc": "QC",
    "qc_scale": "QC scale only",
    "qc_shift": "QC shift only",
    "qc_per_tensor": "QC per tensor",
    "bn_affine": "BN affine",
    "bn_affine_and_biases": "BN affine, biases",
    "bn_reestimation": "BN re-estimation",
    "bias_correction": "bias correction",
    "soft_rounding": "soft rounding",
}
INK = "#333333"
QUIET = "#8a8a8a"  # reference lines and what is not the point
MAP = "cividis"
DPI = 96
ABOVE = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2, "borderaxespad": 0.2}  # a legend over no curve


class Picture(Figure):
    """A matplotlib Figure that shows itself in a notebook, whether or not pyplot was ever imported."""

    def png(self, *, dpi=DPI):
        """The figure as PNG bytes of 256 colours, a third of the size; the same drawing gives the same bytes."""
        whole, small = BytesIO(), BytesIO()
        self.savefig(whole, format="png", dpi=dpi)
        of_256_colors(Image.open(whole).convert("RGB")).save(small, format="png", optimize=True)
        return small.getvalue()

    def _repr_png_(self):
        return self.png()


def of_256_colors(image):
    """An RGB image with a palette: drawings colour for colour, photographs, which need more colours, dithered."""
    cover = {"colors": 256, "method": Image.Quantize.MAXCOVERAGE}  # keeps the colours of small marks
    plain = image.quantize(**cover, dither=Image.Dither.NONE)
    error = max(high for _, high in ImageChops.difference(image, plain.convert("RGB")).getextrema())
    if error < 24:
        return plain
    palette = image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST).quantize(**cover, kmeans=1)
    return image.quantize(256, palette=palette)


def method_style(method):
    """The `MethodStyle` of a method; raises ValueError for a name that is not in `METHODS`."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    return METHODS[method]


def label_of(method):
    """How a method's name is printed: its `MethodStyle`'s label, else word by word.

    >>> label_of("ema+qc"), label_of("dampening+qc"), label_of("ema+bn_affine")
    ('EMA+QC', 'Dampening+QC', 'EMA+BN affine')
    """
    if method in METHODS:
        return METHODS[method].label
    words = [METHODS[word].label if word in METHODS else WORDS.get(word) for word in method.split("+")]
    if None in words:
        raise ValueError(f"method must be made of {', '.join([*METHODS, *WORDS])}, got {method!r}")
    return "+".join(words)


def new_figure(width=7.0, height=3.6, *, rows=1, columns=1, **options):
    """A new white figure of so many inches, and its axes as an array (rows, columns)."""
    figure = Picture(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for one in axes.flat:
        plain_axes(one)
    return figure, axes


def new_mosaic(width, height, places):
    """A new white figure of so many inches, and its axes by name, laid out as `places` (rows of names) says."""
    figure = Picture(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplot_mosaic(places)
    for one in axes.values():
        plain_axes(one)
    return figure, axes


def plain_axes(axes):
    """The same axes without a frame, with a quiet grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def set_labels(axes, *, x, y, title=None):
    """The same axes, with labels that carry their units and a title that starts at the left."""
    axes.set_xlabel(x, color=INK, fontsize=10)
    axes.set_ylabel(y, color=INK, fontsize=10)
    if title:
        axes.set_title(title, loc="left", color=INK, fontsize=10.5)
    return axes


def set_headline(figure, text):
    """The same figure under one sentence that states what is seen, in as many lines as its width asks for."""
    lines = lines_of(text, int(11 * figure.get_figwidth()))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", color=INK, fontsize=11.5, fontweight="bold")
    return figure


def lines_of(text, most):
    """The text in as few lines as `most` characters a line allow, none much shorter than the others.

    >>> lines_of("one two three four", 14)
    ['one two', 'three four']
    """
    count = len(wrap(text, most))
    return next(lines for width in range(1, most + 1) if len(lines := wrap(text, width)) == count)


def text_figure(text, *, width=7.0):
    """A figure as high as the sentence that it holds: what a widget shows where it cannot draw."""
    lines = lines_of(text, int(9 * width))
    figure, axes = new_figure(width, 0.4 + 0.2 * len(lines))
    axes[0, 0].axis("off")
    axes[0, 0].text(0, 0.5, "\n".join(lines), va="center", color=INK, fontsize=12)
    return figure
