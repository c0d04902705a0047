"""Which pixels belong to the objects that a segmenting network reports?

A box comes with coefficients, an image with prototypes, a quarter of its size. Their sum of products, squashed to 0..1,
enlarged by linear interpolation, cut to the box and compared with 0.5 is the mask. Only the pixels of the box are ever
worked out, which gives the same and takes a tenth of the time.
"""

import cv2
import numpy as np

LEAST = 0.5  # probability above which a pixel is the object's


def decode_masks(rows, prototypes, shape):
    """The masks (k, height, width) of 0 and 1, uint8, of rows (k, 6 + M) in an image of `shape` (height, width).

    Rows are what `detections` reports: x1, y1, x2, y2 in pixels of that image, score, class, M mask coefficients;
    `prototypes` (M, h, w) are the image's. Raises ValueError where these do not fit together.
    """
    masks = np.zeros((len(rows), *shape), np.uint8)
    for mask, (cut, top, left) in zip(masks, cut_masks(rows, prototypes, shape), strict=True):
        mask[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return masks


def mask_runs(rows, prototypes, place):
    """COCO's run lengths, one dictionary a row, of the masks of rows (k, 6 + M) in the picture as it was.

    `place` says where the picture lies in the letterbox that the rows are of (`places.Place`). Where it was resized,
    masks are resized back by linear interpolation and rounding, as the official code has it.
    """
    left, top = (int(side) for side in place.pad)
    bottom, right = (int(side - pad) for side, pad in zip(place.shape, place.pad[::-1], strict=True))
    own = place.height, place.width
    runs = []
    for cut, y, x in cut_masks(rows, prototypes, place.shape):
        if own == (bottom - top, right - left):
            cut = cut[max(top - y, 0) : max(bottom - y, 0), max(left - x, 0) : max(right - x, 0)]
            runs.append(encode_cut(cut, max(y - top, 0), max(x - left, 0), own))
        else:
            whole = np.zeros(place.shape, np.uint8)
            whole[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
            runs.append(encode_cut(cv2.resize(whole[top:bottom, left:right], own[::-1]), 0, 0, own))
    return runs


def cut_masks(rows, prototypes, shape):
    """For each row its mask inside its box and where that lies in the image: (uint8 (h, w), top, left), an iterator."""
    count, *size = prototypes.shape
    factor = shape[0] // size[0]
    if rows.shape[1] != 6 + count or (size[0] * factor, size[1] * factor) != tuple(shape):
        raise ValueError(
            f"rows of {rows.shape[1]} and prototypes of {prototypes.shape} do not fit an image of {tuple(shape)}: "
            "rows must be 6 + M, prototypes (M, height / n, width / n)"
        )
    logits = (rows[:, 6:] @ prototypes.reshape(count, -1)).reshape(-1, *size)  # (k, h, w)
    limits = np.ceil(rows[:, :4]).clip(0, [shape[1], shape[0]] * 2).astype(int)
    for plane, (x1, y1, x2, y2) in zip(logits, limits.tolist(), strict=True):
        if x1 < x2 and y1 < y2:
            yield cut_mask(plane, slice(y1, y2), slice(x1, x2), factor), y1, x1
        else:
            yield np.zeros((0, 0), np.uint8), 0, 0


def cut_mask(logits, rows, columns, factor):
    """The mask, uint8, of the pixels `rows`, `columns` of an image `factor` times as large as `logits` (h, w)."""
    # One more of the small pixels on every side: what interpolation makes up beyond the edge is cut off again.
    first = [max(part.start // factor - 1, 0) for part in (rows, columns)]
    small = logits[first[0] : (rows.stop - 1) // factor + 2, first[1] : (columns.stop - 1) // factor + 2]
    probabilities = 1 / (1 + np.exp(-small.clip(-60, 60)))  # beyond 60 nothing changes but that exp overflows
    large = cv2.resize(probabilities, (factor * small.shape[1], factor * small.shape[0]))
    inside = [slice(p.start - factor * f, p.stop - factor * f) for p, f in zip((rows, columns), first, strict=True)]
    return (large[inside[0], inside[1]] > LEAST).astype(np.uint8)


def encode_cut(cut, top, left, shape):
    """COCO's run lengths of a mask of `shape` (height, width) that is 0 but for `cut` (h, w), which lies at top, left.

    >>> encode_cut(np.array([[1, 1]]), 1, 0, (2, 3))
    {'size': [2, 3], 'counts': [1, 1, 1, 1, 2]}
    """
    height, width = shape
    pixels = np.zeros(cut.shape[1] * height + 2, bool)  # column after column, as run lengths count, between two zeros
    pixels[1:-1].reshape(-1, height)[:, top : top + cut.shape[0]] = cut.T
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + left * height
    ends = np.concatenate(([0], changes, [width * height]))
    return {"size": [int(height), int(width)], "counts": (ends[1:] - ends[:-1]).tolist()}
