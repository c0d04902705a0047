"""Which detections change from method to method on one picture?

A file of recorded detections (`python -m oscillab.study.recorded_detections`) holds what each network of a run sees in a few
pictures, and what there is to be seen.
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image, ImageFilter

from .pictures import add_name
from .style import INK, METHODS, method_style, new_figure, set_headline

FORMAT = "oscillab detections"
LEAST_OVERLAP = 0.5  # of a detection and an object of the same class, to count as found
COLORS = 32  # of a picture, so that the figure's own colours stay as they are in its 256
FOUND, WRONG = "#3fd0ff", "#ff6f59"


class Sightings:
    """Recorded detections: `pictures`, `methods` (in the order of `METHODS`), `layers` of the networks, `names`."""

    def __init__(self, content):
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(
                "not a file of recorded detections; `python -m oscillab.study.recorded_detections` writes one"
            )
        self.content, self.names, self.layers = content, content["names"], content["layers"]
        self.methods = [name for name in METHODS if name in content["methods"]]
        self.pictures = list(content["truth"])

    @classmethod
    def open(cls, path):
        """The detections in a JSON file; raises ValueError where it cannot be read or is another file."""
        try:
            return cls(json.loads(Path(path).read_text()))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: cannot be read as recorded detections ({error})") from error

    def truth(self, picture):
        """Boxes (n, 4) in pixels and labels (n,) of what there is in a picture."""
        rows = np.array(self.content["truth"][self._known(picture)], float).reshape(-1, 5)
        return rows[:, :4], rows[:, 4].astype(int)

    def seen(self, picture, method):
        """Boxes (n, 4), scores (n,) and labels (n,) of what a method's network detects in a picture, best first."""
        if method not in self.methods:
            raise ValueError(f"method must be one of {', '.join(self.methods)}, got {method!r}")
        rows = np.array(self.content["methods"][method][self._known(picture)], float).reshape(-1, 6)
        return rows[:, :4], rows[:, 4], rows[:, 5].astype(int)

    def _known(self, picture):
        if str(picture) not in self.pictures:
            raise ValueError(f"picture must be one of {', '.join(self.pictures)}, got {picture}")
        return str(picture)


def matches(boxes, labels, true_boxes, true_labels):
    """For each detection (best first) the number of the object that it finds, or -1; each object is found once.

    >>> box = np.array([[0.0, 0, 4, 4]])
    >>> matches(np.vstack([box, box]), [1, 1], box, [1])
    [0, -1]
    """
    taken, found = set(), []
    overlaps = overlap(boxes, true_boxes)
    for row, label in zip(overlaps, labels, strict=True):
        free = [k for k in range(len(true_boxes)) if k not in taken and true_labels[k] == label]
        best = max(free, key=lambda k: row[k], default=None)
        hit = best is not None and row[best] >= LEAST_OVERLAP
        found.append(best if hit else -1)
        taken |= {best} if hit else set()
    return found


def overlap(boxes, others):
    """Intersection over union of boxes (n, 4) with others (m, 4): (n, m)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [np.clip(b[:, 2:] - b[:, :2], 0, None).prod(1) for b in (boxes, others)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def draw_sightings(sightings, picture, image, *, methods=("fp32", "lsq", "ema", "ema+qc"), chosen=None):
    """A figure of one picture as each method's network sees it: found objects blue, wrong boxes red and dashed.

    `image`: uint8 (H, W, 3). `chosen`: the method whose panel is framed.
    """
    figure, axes = new_figure(9.6, 2.9, columns=len(methods))
    counts = {method: draw_one(panel, sightings, picture, image, method)
              for panel, method in zip(axes[0], methods, strict=True)}  # fmt: skip
    for panel, method in zip(axes[0], methods, strict=True):
        panel.set_title(f"{method_style(method).label}: {counts[method]}", loc="left", color=INK, fontsize=9,
                        fontweight="bold" if method == chosen else "normal")  # fmt: skip
        for spine in panel.spines.values():
            spine.set(visible=method == chosen, color=METHODS["ema+qc"].color, linewidth=3)
    count = len(sightings.truth(picture)[0])
    return set_headline(
        figure, f"Picture {picture}, {count} objects: found (blue, score) and wrong (red, dashed) detections"
    )


def calm(image):
    """The picture (H, W, 3) smoothed and in few colours, as a ground for boxes: a third of the bytes."""
    smooth = Image.fromarray(image).filter(ImageFilter.MedianFilter(3))
    return np.asarray(smooth.quantize(COLORS, dither=Image.Dither.NONE).convert("RGB"))


def draw_one(axes, sightings, picture, image, method):
    """How many objects the method finds, and how many of its boxes are wrong, in words; both drawn into the axes."""
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.imshow(calm(image), interpolation="nearest")
    boxes, scores, labels = sightings.seen(picture, method)
    found = matches(boxes, labels, *sightings.truth(picture))
    for box, score, label, hit in zip(boxes, scores, labels, found, strict=True):
        color, dash = (FOUND, "solid") if hit >= 0 else (WRONG, "dashed")
        corner, side = box[:2], box[2:] - box[:2]
        axes.add_patch(Rectangle(corner, *side, fill=False, edgecolor=color, linewidth=1.3, linestyle=dash))
        add_name(axes, box, f"{sightings.names[label]} {score:.2f}", color, image.shape[1], fontsize=5)
    hits = sum(hit >= 0 for hit in found)
    return f"{hits} found, {len(found) - hits} wrong"
