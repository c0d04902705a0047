"""How do boxes and masks get into a picture, at its own size?"""

import cv2
import numpy as np

from .pictures import BOX_COLORS

MASK_SHARE = 0.45  # of a mask's colour in the pixels that it covers


def paint_detections(image, boxes, labels, names, scores, masks=None):
    """A copy of `image`, uint8 RGB (H, W, 3), with boxes, names and scores on it, and masks under them, one colour a class.

    `boxes` (n, 4) x1 y1 x2 y2 in pixels, `labels` (n,) indices into `names`, `scores` (n,), `masks` (n, H, W) of 0 and 1
    or None. The best score is painted last, on top.
    """
    painted = image.copy()
    order = np.argsort(scores, kind="stable")
    for number in order if masks is not None else ():
        inside = masks[number].astype(bool)
        blend = (1 - MASK_SHARE) * painted[inside] + MASK_SHARE * np.array(color_of(labels[number]))
        painted[inside] = blend.round().astype(np.uint8)
    for number in order:
        text = f"{names[int(labels[number])]} {scores[number]:.2f}"
        _paint_box(painted, boxes[number], text, color_of(labels[number]))
    return painted


def color_of(label):
    """Red, green, blue of a class, 0..255.

    >>> color_of(0)
    (255, 210, 63)
    """
    code = BOX_COLORS[int(label) % len(BOX_COLORS)]
    return tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))


def _paint_box(image, box, text, color):
    """Nothing; paints one box and its label into the image, lines and letters in proportion to it."""
    height, width = image.shape[:2]
    scale = max(min(height, width) / 640, 0.7)  # letters that can still be read
    line = max(1, round(2 * scale))
    x1, y1, x2, y2 = (int(round(float(side))) for side in box)
    cv2.rectangle(image, (x1, y1), (x2, y2), color, line)
    font = {"fontFace": cv2.FONT_HERSHEY_SIMPLEX, "fontScale": 0.5 * scale, "thickness": 1}
    (wide, high), _ = cv2.getTextSize(text, **font)
    left, bottom = max(0, min(x1, width - wide - 2)), max(y1, high + 4)
    cv2.rectangle(image, (left, bottom - high - 4), (left + wide + 2, bottom), color, -1)
    cv2.putText(image, text, (left + 1, bottom - 3), color=(0, 0, 0), lineType=cv2.LINE_AA, **font)
