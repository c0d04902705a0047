"""Check a COCO annotation file when it is opened: faults make one ValueError, what can be mended is, with a warning."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

ROUNDING = 1.0  # pixels by which a box may stand over the image's edge before it is worth a word
LARGEST = 2**53  # no coordinate, area or id of a file lies beyond
LARGEST_SIDE, LARGEST_IMAGE = 2**16, 2**30  # pixels; OpenCV reads no larger image
SHOWN = 10  # faults told at once
NUMBER = re.compile("[P-o]{0,6}[0-O]")  # of compressed run lengths: all characters but its last have bit 32
COMPRESSED = re.compile(f"(?:{NUMBER.pattern})+")


def read_annotations(path: Path | str) -> dict[str, Any]:
    """Return the checked content of a COCO annotation file: lists images, annotations and categories.

    Annotations have a number for `iscrowd` and `area`, and a `segmentation` only where there is one. Boxes over an image's
    edge are clipped, those without any area inside left out, with a warning. Raises ValueError that tells up to ten faults.
    """
    content = parse(Path(path))
    refuse(path, faults(content))
    content, notes = mended(content)
    for note in notes:
        log.warning("%s: %s", path, note)
    return content


def refuse(path: Path | str, found: list[str]) -> None:
    """Raise ValueError that tells the first ten of the faults found in a file, if there are any."""
    if found:
        more = f" … and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ValueError(f"{path}: {'; '.join(found[:SHOWN])}{more}")


def parse(path: Path) -> Any:
    """Return what a JSON file holds; raise ValueError where there is none."""
    if not path.is_file():
        raise ValueError(f"no annotation file {path}: a data set holds annotations/instances_<split>.json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8, numbers of too many digits
        raise ValueError(f"{path} is not JSON: {error}") from error


def faults(content: Any) -> list[str]:
    """Return what is wrong with the content of an annotation file, each in words with its entry; empty if nothing is."""
    if not isinstance(content, dict):
        return [f"must hold a dictionary in COCO's format, got a {type(content).__name__}"]
    if lacking := [part for part in FIELDS if not isinstance(content.get(part), list)]:
        return [f"lacks the list {part!r}: COCO's format has {', '.join(FIELDS)}" for part in lacking]
    if not content["images"]:
        return ["is empty: it must list one image or more"]
    if wrong := [fault for part in FIELDS for fault in _field_faults(part, content[part])]:
        return wrong
    wrong, images = [*_identity_faults(content)], {image["id"]: image for image in content["images"]}
    for number, entry in enumerate(content["annotations"]):
        given, image = entry.get("segmentation"), images.get(entry["image_id"])
        if given not in (None, []) and image and (fault := _segmentation_fault(given, image["height"], image["width"])):
            wrong.append(f"segmentation of entry {number} of 'annotations'{_where(entry)} {fault}")
    return wrong


def mended(content: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the content of a sound file with defaults set and boxes in their images, and a sentence for each change."""
    images = {image["id"]: image for image in content["images"]}
    kept, clipped, dropped = [], 0, []
    for entry in content["annotations"]:
        box = entry["bbox"]
        x1, y1, x2, y2 = clip_box(box, images[entry["image_id"]])
        inside = [x1, y1, x2 - x1, y2 - y1]
        if min(*box[2:], *inside[2:]) <= 0:
            dropped.append(entry)
            continue
        if max(abs(a - b) for a, b in zip(box, inside, strict=True)) > ROUNDING:
            box, clipped = inside, clipped + 1
        area = box[2] * box[3] if entry.get("area") is None else entry["area"]
        kept.append(entry | {"bbox": box, "iscrowd": int(entry.get("iscrowd") or 0), "area": area})
        if not entry.get("segmentation"):
            kept[-1].pop("segmentation", None)
    notes = [f"{clipped} boxes stand over their image's edge and were clipped"] if clipped else []
    if dropped:
        first = f"the first {dropped[0]['bbox']} in image {dropped[0]['image_id']}"
        notes.append(f"left out {len(dropped)} boxes without area in their image, {first}")
    if content["annotations"] and (roots := root_categories(content)):
        notes.append(f"the category {roots[0]!r} has no object and is above others; it counts as a class nevertheless")
    return content | {"annotations": kept}, notes


def root_categories(content: dict[str, Any]) -> list[str]:
    """Return the names of categories that stand above others and have no object, as Roboflow's first."""
    used = {entry["category_id"] for entry in content["annotations"]}
    parents = {category.get("supercategory") for category in content["categories"]} - {None}
    return [c["name"] for c in content["categories"] if c["id"] not in used and c["name"] in parents]


def clip_box(box: list[float], image: dict[str, Any]) -> list[float]:
    """Return COCO's box [x, y, width, height] as [x1, y1, x2, y2], cut to the image's own height and width."""
    x, y, width, height = box
    sides = (image["width"], image["height"]) * 2
    return [min(max(edge, 0), side) for edge, side in zip((x, y, x + width, y + height), sides, strict=True)]


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number of a sensible size; true and false are none."""
    return type(value) in (int, float) and -LARGEST < value < LARGEST


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != "" and "\0" not in value


def _is_path(value: Any) -> bool:
    return _is_text(value) and all(len(part.encode("utf-8", "surrogatepass")) <= 255 for part in value.split("/"))


def _is_polygon(value: Any) -> bool:
    legal = isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0
    return legal and all(is_number(part) and abs(part) < LARGEST_SIDE for part in value)


Check = tuple[Callable[[Any], bool], str]
ID: Check = (lambda v: isinstance(v, str) or (type(v) is int and is_number(v)), "a whole number or text")
SIDE: Check = (lambda v: type(v) is int and 1 <= v < LARGEST_SIDE, f"a whole number of pixels, 1..{LARGEST_SIDE - 1}")
PATH: Check = (_is_path, "text, a path of names of 255 bytes at most")
BOX: Check = (lambda v: isinstance(v, list) and len(v) == 4 and all(map(is_number, v)), "4 finite numbers")
CROWD: Check = (lambda v: type(v) in (int, bool) and v in (0, 1), "0 or 1")
AREA: Check = (lambda v: is_number(v) and v >= 0, "a number of 0 or more")
FIELDS: dict[str, dict[str, Check]] = {
    "images": {"id": ID, "file_name": PATH, "height": SIDE, "width": SIDE},
    "annotations": {"id": ID, "image_id": ID, "category_id": ID, "bbox": BOX, "iscrowd": CROWD, "area": AREA},
    "categories": {"id": ID, "name": (_is_text, "text"), "supercategory": (lambda v: isinstance(v, str), "text")},
}
OPTIONAL = ("annotations id", "annotations iscrowd", "annotations area", "categories supercategory")  # null is absent


def _field_faults(part: str, entries: list[Any]) -> Iterator[str]:
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            yield f"entry {number} of {part!r} must be a dictionary, got {_short(entry)}"
            continue
        for key, (check, allowed) in FIELDS[part].items():
            value, optional = entry.get(key), f"{part} {key}" in OPTIONAL
            if value is None and (optional or key not in entry):
                if not optional:
                    yield f"entry {number} of {part!r} lacks {key}"
            elif not check(value):
                yield f"{key} of entry {number} of {part!r}{_where(entry)} must be {allowed}, got {_short(value)}"


def _identity_faults(content: dict[str, Any]) -> Iterator[str]:
    """Yield ids that occur twice or are of two types, names that occur twice, and references to what is not listed."""
    for part, key in (("images", "id"), ("categories", "id"), ("categories", "name"), ("annotations", "id")):
        values = [entry[key] for entry in content[part] if entry.get(key) is not None]
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            yield f"{len(twice)} {key}s of {part!r} occur twice, the first is {_short(twice[0])}: they must be unique"
        if len({type(value) for value in values}) > 1:
            yield f"the {key}s of {part!r} must be all numbers or all text"
    for key, part in (("image_id", "images"), ("category_id", "categories")):
        known: set[Hashable] = {entry["id"] for entry in content[part]}
        if lost := [entry for entry in content["annotations"] if entry[key] not in known]:
            first = f"the first has {key} {_short(lost[0][key])}"
            yield f"{len(lost)} annotations point at {part} that it does not list, {first}"


def _segmentation_fault(given: Any, height: int, width: int) -> str | None:
    """Return why a segmentation is none of an image of that size, or None; polygons and run lengths are allowed.

    Run lengths of another size are those of an image that was shrunk or enlarged, of the same shape within a pixel.
    """
    if isinstance(given, list):
        allowed = f"lists of 6 or more numbers x, y, x, y, … within ±{LARGEST_SIDE - 1}"
        return None if all(map(_is_polygon, given)) else f"must be polygons, {allowed}, got {_short(given)}"
    size = given.get("size") if isinstance(given, dict) else None
    if not (isinstance(size, list) and len(size) == 2 and all(map(SIDE[0], size))):
        return f"must be a list of polygons or run lengths with size [height, width] and counts, got {_short(given)}"
    high, wide = size
    if high * wide > LARGEST_IMAGE:
        return f"has size {size}, which is more than {LARGEST_IMAGE} pixels"
    if abs(high * width / wide - height) > 1 and abs(wide * height / high - width) > 1:
        return f"has size {size}, its image has [height, width] = {[height, width]}"
    counts, total = given.get("counts"), high * wide
    if isinstance(counts, str):
        if not COMPRESSED.fullmatch(counts):
            return "has compressed run lengths that are no numbers of 1 to 7 characters '0' to 'o', the last below 'P'"
        counts = _uncompressed(counts)
    if not isinstance(counts, list) or any(type(count) is not int or not 0 <= count <= total for count in counts):
        return f"has counts that must be a string, or a list of whole numbers of 0..{total}"
    return None if sum(counts) == total else f"has run lengths that must add up to {total} pixels, got {sum(counts)}"


def _uncompressed(text: str) -> list[int]:
    """Return COCO's compressed run lengths: 5 bits a character, signed, each count less the one two before it."""
    counts: list[int] = []
    for number in NUMBER.findall(text):
        codes = [ord(character) - 48 for character in number]
        value = sum((code & 31) << 5 * place for place, code in enumerate(codes))
        value -= (codes[-1] & 16) << 5 * len(codes) - 4  # the sign
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def _where(entry: dict[str, Any]) -> str:
    """Return which image, and which annotation, an entry is of, as far as it tells."""
    names = {"image_id": "image", "file_name": "file", "id": "id"}
    known = [f"{word} {_short(entry[key])}" for key, word in names.items() if isinstance(entry.get(key), int | str)]
    return f" ({', '.join(known)})" if known else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
