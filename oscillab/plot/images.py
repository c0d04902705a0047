"""Draw what detectors see in images: boxes, masks, and which recorded detections change from method to method."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from oscillab.methods import METHODS, method

from .style import INK, InlineFigure, new_figure, set_headline

BOX_COLORS = (
    *("#ffd23f", "#3fd0ff", "#ff6f59", "#9cff57", "#ff7bd5"),
    *("#ffffff", "#ffa64d", "#7af5d0", "#b79bff", "#d5ff40"),
)
FORMAT = "oscillab detections"
LEAST_OVERLAP = 0.5  # of a detection and an object of the same class, to count as found
COLORS = 32  # of an image behind boxes, so that the figure's own colours stay as they are in its 256
FOUND, WRONG = "#3fd0ff", "#ff6f59"


def draw_images(
    images: Sequence[tuple[Any, ...]], *, titles: Iterable[str] | None = None, columns: int = 4, width: float = 8.4
) -> InlineFigure:
    """Return a figure of images side by side, each with its boxes, names and scores.

    `images`: a list of (image uint8 (H, W, 3), boxes (n, 4) x1 y1 x2 y2 in pixels, names [n], scores (n,) or None)
    and, where there are masks, (n, H, W) of 0 and 1 as a fifth entry: each object is then tinted in its colour.
    """
    if not images:
        raise ValueError("there is no image to draw: give at least one (image, boxes, names, scores)")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    texts = list(titles or [""] * len(images))
    figure, axes = new_figure(width, rows * (width / columns + 0.25 * any(texts)), rows=rows, columns=columns)
    for panel in axes.flat:
        panel.set_axis_off()
    for panel, (image, boxes, names, scores, *masks), text in zip(axes.flat, images, texts, strict=False):
        order = sorted(set(names))
        colors = [BOX_COLORS[order.index(name) % len(BOX_COLORS)] for name in names]
        panel.imshow(tinted(image, masks[0] if masks else (), colors))
        for number, (box, name) in enumerate(zip(np.reshape(boxes, (-1, 4)), names, strict=True)):
            label = name if scores is None else f"{name} {scores[number]:.2f}"
            add_box(panel, box, label, colors[number], image.shape[1], fontsize=5.5, linewidth=1.4)
        if text:
            panel.set_title(text, loc="left", color=INK, fontsize=10)
    return figure


def add_box(axes: Axes, box: np.ndarray, text: str, color: str, width: int, *, fontsize: float, **line: Any) -> None:
    """Add a box (x1 y1 x2 y2) and a name above it that stays within its image, `width` pixels wide.

    A box in the left half has its name from its left edge on, one in the right half up to its right edge.
    """
    x1, y1, x2, y2 = box
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, **line))
    place, side = (max(x1, 0), "left") if x1 + x2 < width else (min(x2, width - 1), "right")
    patch = {"facecolor": color, "edgecolor": "none", "pad": 0.5}
    axes.text(place, max(y1 - 1.5, 6), text, fontsize=fontsize, ha=side, va="bottom", clip_on=True, bbox=patch)


def tinted(image: np.ndarray, masks: Iterable[np.ndarray], colors: Iterable[str], *, share: float = 0.5) -> np.ndarray:
    """Return a copy of an image (H, W, 3), uint8, with `share` of its colour in the pixels of each mask."""
    painted = np.array(image)
    for mask, color in zip(masks, colors, strict=False):
        where = np.asarray(mask, bool)
        painted[where] = ((1 - share) * painted[where] + share * 255 * np.array(to_rgb(color))).round().astype(np.uint8)
    return painted


def paint_detections(
    image: np.ndarray, boxes: np.ndarray, labels: Sequence[int], names: Sequence[str], scores: Sequence[float],
    masks: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Return a copy of `image`, uint8 RGB (H, W, 3), with boxes, names and scores painted, and masks under them.

    `boxes` (n, 4) x1 y1 x2 y2 in pixels, `labels` (n,) indices into `names`, `scores` (n,), `masks` (n, H, W) of 0 and 1
    or None. A class has one colour; the best score is painted last, on top.
    """
    order = np.argsort(scores, kind="stable")
    colors = [BOX_COLORS[int(labels[number]) % len(BOX_COLORS)] for number in order]
    covers = [] if masks is None else [masks[number] for number in order]
    painted = Image.fromarray(tinted(image, covers, colors, share=0.45))
    draw, (width, height) = ImageDraw.Draw(painted), painted.size
    scale = max(min(width, height) / 640, 0.7)  # lines and letters in proportion to the image, readable in small ones
    font = ImageFont.load_default(16 * scale)
    for number, color in zip(order, colors, strict=True):
        text = f"{names[int(labels[number])]} {scores[number]:.2f}"
        x1, y1, x2, y2 = (round(float(side)) for side in boxes[number])
        edges = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
        draw.rectangle(edges, outline=color, width=max(1, round(2 * scale)))
        wide, high = (round(side) + 4 for side in draw.textbbox((0, 0), text, font=font)[2:])
        left, bottom = max(0, min(x1, width - wide)), max(y1, high)
        draw.rectangle((left, bottom - high, left + wide, bottom), fill=color)
        draw.text((left + 2, bottom - high + 1), text, fill="black", font=font)
    return np.array(painted)


class RecordedDetections:
    """What networks detect in a few images: `images` (numbers as text), `methods` in their order, `layers`, `names`."""

    def __init__(self, content: Any):
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("not a file of recorded detections; `python -m oscillab.study.fixtures` writes one")
        self.content, self.names, self.layers = content, content["names"], content["layers"]
        self.methods = [name for name in METHODS if name in content["methods"]]
        self.images = list(content["truth"])

    @classmethod
    def open(cls, path: Path | str) -> "RecordedDetections":
        """Return the detections in a JSON file; raises ValueError where it cannot be read or is another file."""
        try:
            return cls(json.loads(Path(path).read_text()))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: cannot be read as recorded detections ({error})") from error

    def truth(self, image: int | str) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (n, 4) in pixels and labels (n,) of the objects in an image."""
        rows = np.array(self.content["truth"][self._known(image)], float).reshape(-1, 5)
        return rows[:, :4], rows[:, 4].astype(int)

    def seen(self, image: int | str, method: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return boxes (n, 4), scores (n,) and labels (n,) of what a method's network detects in an image, best first."""
        if method not in self.methods:
            raise ValueError(f"method must be one of {', '.join(self.methods)}, got {method!r}")
        rows = np.array(self.content["methods"][method][self._known(image)], float).reshape(-1, 6)
        return rows[:, :4], rows[:, 4], rows[:, 5].astype(int)

    def matches(self, image: int | str, method: str) -> list[int]:
        """Return for each detection of a method, best first, the number of the object that it finds, or -1."""
        boxes, _, labels = self.seen(image, method)
        return matches(boxes, labels, *self.truth(image))

    def _known(self, image: int | str) -> str:
        if str(image) not in self.images:
            raise ValueError(f"image must be one of {', '.join(self.images)}, got {image}")
        return str(image)


def matches(boxes: np.ndarray, labels: Any, true_boxes: np.ndarray, true_labels: Any) -> list[int]:
    """Return for each detection (best first) the number of the object that it finds, or -1; each is found once."""
    found: list[int] = []
    for row, label in zip(overlap(boxes, true_boxes), labels, strict=True):
        free = [k for k in range(len(true_boxes)) if k not in found and true_labels[k] == label]
        best = max(free, key=lambda k: row[k], default=-1)
        found.append(best if best >= 0 and row[best] >= LEAST_OVERLAP else -1)
    return found


def overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (n, 4) with others (m, 4), (n, m)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    area, other = (np.clip(each[:, 2:] - each[:, :2], 0, None).prod(1) for each in (boxes, others))
    return np.asarray(shared / np.maximum(area[:, None] + other - shared, 1e-9))


def draw_detections(
    detections: RecordedDetections, number: int | str, image: np.ndarray, *,
    methods: Iterable[str] = ("fp32", "lsq", "ema", "ema+qc"), chosen: str | None = None,
) -> InlineFigure:  # fmt: skip
    """Return a figure of one image as each method's network sees it: found objects blue, wrong boxes red and dashed.

    `image`: uint8 (H, W, 3), the one of that number. `chosen`: the method whose panel is framed.
    """
    shown = list(methods)
    smooth = Image.fromarray(image).filter(ImageFilter.MedianFilter(3)).quantize(COLORS, dither=Image.Dither.NONE)
    figure, axes = new_figure(9.6, 2.9, columns=len(shown))
    for panel, name in zip(axes[0], shown, strict=True):
        panel.grid(False)
        panel.set(xticks=[], yticks=[])
        panel.imshow(np.asarray(smooth.convert("RGB")), interpolation="nearest")  # a third of the bytes behind boxes
        boxes, scores, labels = detections.seen(number, name)
        found = detections.matches(number, name)
        for box, score, label, hit in zip(boxes, scores, labels, found, strict=True):
            color, dash = (FOUND, "solid") if hit >= 0 else (WRONG, "dashed")
            words = f"{detections.names[label]} {score:.2f}"
            add_box(panel, box, words, color, image.shape[1], fontsize=5, linewidth=1.3, linestyle=dash)
        hits = sum(hit >= 0 for hit in found)
        text = f"{method(name).label}: {hits} found, {len(found) - hits} wrong"
        panel.set_title(text, loc="left", color=INK, fontsize=9, fontweight="bold" if name == chosen else "normal")
        for spine in panel.spines.values():
            spine.set(visible=name == chosen, color=METHODS["ema+qc"].color, linewidth=3)
    text = f"Image {number}, {len(detections.truth(number)[0])} objects: found (blue, score) and wrong (red, dashed) detections"
    return set_headline(figure, text)
