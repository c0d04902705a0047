"""What does a COCO annotation file say, and is it fit to train on?

Everything that a later step would stumble over is looked for here, once, when the file is opened: what cannot be meant
is a one-line ValueError, what can be mended is mended and counted in one warning.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

log = logging.getLogger(__name__)

ROUNDING = 1.0  # pixels by which a box may stand over the image's edge before it is worth a word
_NEEDED = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


def read_annotations(path):
    """The content of a COCO annotation file: a dictionary with checked lists images, annotations and categories.

    Boxes that stand over an image's edge are clipped, boxes without any area inside left out, with one warning each.
    Raises ValueError when the file is absent, no JSON, no COCO, empty, or refers to images or categories that it does
    not list.
    """
    content = _parse(Path(path))
    for part, keys in _NEEDED.items():
        _check_part(content, part, keys, path)
    if not content["images"]:
        raise ValueError(f"{path} is empty: it must list one image or more")
    images = {image["id"]: image for image in content["images"]}
    if len(images) < len(content["images"]):
        raise ValueError(f"{path} lists {len(content['images']) - len(images)} images twice: ids must be unique")
    _check_references(content, "image_id", set(images), "images", path)
    _check_references(content, "category_id", {entry["id"] for entry in content["categories"]}, "categories", path)
    return content | {"annotations": _mend_boxes(content["annotations"], images, path)}


def clip_box(box, image):
    """COCO's box [x, y, width, height] as [x1, y1, x2, y2], cut to the image's own height and width."""
    x, y, width, height = box
    low = min(max(x, 0), image["width"]), min(max(y, 0), image["height"])
    return [*low, min(max(x + width, 0), image["width"]), min(max(y + height, 0), image["height"])]


def _parse(path):
    if not path.is_file():
        raise ValueError(f"no annotation file {path}: a data set holds annotations/instances_<split>.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a dictionary in COCO's format, got a {type(content).__name__}")
    return content


def _check_part(content, part, keys, path):
    if not isinstance(content.get(part), list):
        raise ValueError(f"{path} lacks the list {part!r}: COCO's format has {', '.join(_NEEDED)}")
    for number, entry in enumerate(content[part]):
        missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise ValueError(f"{path}: entry {number} of {part!r} lacks {', '.join(missing)}")


def _check_references(content, key, known, part, path):
    lost = [entry for entry in content["annotations"] if entry[key] not in known]
    if lost:
        raise ValueError(
            f"{path}: {len(lost)} annotations point at {part} that it does not list, the first has {key} {lost[0][key]}"
        )


def _mend_boxes(annotations, images, path):
    """The annotations whose boxes lie in their images, clipped where they stood out by more than rounding explains."""
    kept, clipped, dropped = [], 0, []
    for entry in annotations:
        image, box = images[entry["image_id"]], _box(entry, path)
        x1, y1, x2, y2 = clip_box(box, image)
        inside = [x1, y1, x2 - x1, y2 - y1]
        if min(box[2:]) <= 0 or min(inside[2:]) <= 0:
            dropped.append(entry)
        elif max(abs(a - b) for a, b in zip(box, inside, strict=True)) > ROUNDING:
            kept.append(entry | {"bbox": inside})
            clipped += 1
        else:
            kept.append(entry)
    if clipped:
        log.warning("%s: %d boxes stand over their image's edge and were clipped", path, clipped)
    if dropped:
        first = dropped[0]
        text = "%s: left out %d boxes without area in their image, the first %s in image %s"
        log.warning(text, path, len(dropped), first["bbox"], first["image_id"])
    return kept


def _box(entry, path):
    box = entry["bbox"]
    numbers = isinstance(box, list) and all(type(part) in (int, float) and math.isfinite(part) for part in box)
    if not numbers or len(box) != 4:
        raise ValueError(f"{path}: a box must be 4 finite numbers, image {entry['image_id']} has {box!r}")
    return box
