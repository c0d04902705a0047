"""What does a detector see in a picture?"""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from .style import INK, new_figure

BOX_COLORS = (
    "#ffd23f",
    "#3fd0ff",
    "#ff6f59",
    "#9cff57",
    "#ff7bd5",
    "#ffffff",
    "#ffa64d",
    "#7af5d0",
    "#b79bff",
    "#d5ff40",
)


def draw_pictures(pictures, *, titles=None, columns=4, width=8.4):
    """A figure of pictures side by side, each with its boxes, names and scores.

    `pictures`: a list of (image uint8 (H, W, 3), boxes (n, 4) x1 y1 x2 y2 in pixels, names [n], scores (n,) or None)
    and, where there are masks, (n, H, W) of 0 and 1 as a fifth entry: each object is then tinted in its colour.
    """
    if not pictures:
        raise ValueError("there is no picture to draw: give at least one (image, boxes, names, scores)")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    titles = list(titles or [None] * len(pictures))
    figure, axes = new_figure(width, rows * (width / columns + 0.25 * any(titles)), rows=rows, columns=columns)
    for one in axes.flat:
        one.set_axis_off()
    for one, picture, title in zip(axes.flat, pictures, titles, strict=False):
        add_picture(one, *picture)
        if title:
            one.set_title(title, loc="left", color=INK, fontsize=10)
    return figure


def add_picture(axes, image, boxes, names, scores=None, masks=()):
    """The axes with a picture and its boxes, one colour a name, and its masks."""
    order = {name: number for number, name in enumerate(sorted(set(names)))}
    axes.imshow(tinted(image, masks, [BOX_COLORS[order[name] % len(BOX_COLORS)] for name in names]))
    for number, (box, name) in enumerate(zip(np.asarray(boxes).reshape(-1, 4), names, strict=True)):
        color = BOX_COLORS[order[name] % len(BOX_COLORS)]
        x1, y1, x2, y2 = box
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=1.4))
        text = name if scores is None else f"{name} {scores[number]:.2f}"
        add_name(axes, box, text, color, image.shape[1])
    return axes


def add_name(axes, box, text, color, width, *, fontsize=5.5):
    """The same axes with a name above a box (x1 y1 x2 y2) of a picture `width` pixels wide: it stays within the picture.

    A box in the left half has its name from its left edge on, one in the right half up to its right edge.
    """
    x1, y1, x2, _ = box
    place, side = (max(x1, 0), "left") if x1 + x2 < width else (min(x2, width - 1), "right")
    patch = {"facecolor": color, "edgecolor": "none", "pad": 0.5}
    axes.text(place, max(y1 - 1.5, 6), text, fontsize=fontsize, ha=side, va="bottom", clip_on=True, bbox=patch)
    return axes


def tinted(image, masks, colors):
    """The picture (H, W, 3), uint8, with the pixels of each mask half in its colour."""
    image = np.array(image)
    for mask, color in zip(masks, colors, strict=False):
        where = np.asarray(mask, bool)
        image[where] = image[where] // 2 + (127 * np.array(to_rgb(color))).astype(np.uint8)
    return image
