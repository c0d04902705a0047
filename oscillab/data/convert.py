"""Write COCO's annotation files for folders in YOLO's or Roboflow's layout; the images stay where they are.

YOLO: data.yaml names the classes and each split's images, images/a.jpg has its objects in labels/a.txt, a line each: the class
and cx cy w h, or the class and the corners x y of a polygon, as fractions of the image. Roboflow: <split>/_annotations.coco.json.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm.auto import tqdm

from oscillab.data.annotations import faults, parse, refuse, root_categories
from oscillab.data.dataset import image_folder
from oscillab.data.images import SUFFIXES, read_image
from oscillab.extras import need
from oscillab.io import atomic_write

log = logging.getLogger(__name__)

ROBOFLOW = "_annotations.coco.json"


def convert(root: Path | str, out: Path | str, *, progress: bool = False) -> dict[str, dict[str, Any]]:
    """Write `out`/annotations/instances_<split>.json for each split of the folder `root`; return what each holds.

    Images are named by their path from `out`/images/<split>, so that the two folders move together. Raises ValueError where
    `out` holds annotations already, and for what is wrong in `root`: up to ten faults, with file and line; then nothing is written.
    """
    root, out = Path(root), Path(out)
    if there := sorted((out / "annotations").glob("instances_*.json")):
        raise ValueError(f"{there[0]} is there already: nothing is overwritten, give another folder")
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}")
    found = read_roboflow(root) if any(root.glob(f"*/{ROBOFLOW}")) else read_yolo(root, progress=progress)
    for split, content in found.items():
        folder = image_folder(out, split)
        for image in content["images"]:
            path = Path(image["file_name"])
            image["file_name"] = os.path.relpath(path.parent.resolve() / path.name, folder.resolve())
        refuse(root, faults(content))
    for split, content in found.items():
        image_folder(out, split).mkdir(parents=True, exist_ok=True)
        with atomic_write(out / "annotations" / f"instances_{split}.json") as temporary:
            temporary.write_text(json.dumps(content))
    return found


def read_roboflow(root: Path) -> dict[str, dict[str, Any]]:
    """Return the content of each split's file, without the category that stands above the others and has no object."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(root.glob(f"*/{ROBOFLOW}")):
        content = parse(path)
        refuse(path, faults(content))
        images = [image | {"file_name": str(path.parent / image["file_name"])} for image in content["images"]]
        lost = [image["file_name"] for image in images if not Path(image["file_name"]).is_file()]
        refuse(path, [f"lists {name}, which is missing" for name in lost])
        found["val" if path.parent.name == "valid" else path.parent.name] = content | {"images": images}
    above = set.intersection(*(set(root_categories(content)) for content in found.values()))
    if above:
        log.info("left out %s, which stands above the other categories and has no object", ", ".join(sorted(above)))
    for content in found.values():
        content["categories"] = [category for category in content["categories"] if category["name"] not in above]
    return found


def read_yolo(root: Path, *, progress: bool = False) -> dict[str, dict[str, Any]]:
    """Return COCO's content of each split that data.yaml names; file names are paths."""
    path = root / "data.yaml"
    if not path.is_file():
        others = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
        if len(others) != 1:
            raise ValueError(f"{root} has no data.yaml, which tells the classes' names and where train and val are")
        path = others[0]
    yaml = need("yaml")
    try:
        about = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(about, dict) or not (splits := [name for name in ("train", "val", "test") if about.get(name)]):
        raise ValueError(f"{path} must say where the images of train, val or test are")
    if about.get("kpt_shape"):
        raise ValueError(f"{path} describes key points (kpt_shape): boxes and polygons can be converted")
    names, wrong = class_names(path, about), list[str]()
    found = {}
    for split in splits:
        if not (images := sorted(set(_images(path, about, split)))):
            continue
        found[split] = _content(tqdm(images, desc=f"read {split}", disable=not progress), names, wrong)
        if not any(label_path(image).is_file() for image in images):
            wrong.append(f"no image of {split} has a label file: the first would be {label_path(images[0])}")
    refuse(root, wrong)
    return found


def class_names(path: Path, about: dict[str, Any]) -> list[str]:
    """Return the classes' names in the order of their numbers; raise ValueError where they are no list of text."""
    names = about.get("names")
    if isinstance(names, dict):
        numbers = {int(key): name for key, name in names.items() if str(key).isdecimal()}
        names = [numbers[key] for key in sorted(numbers)] if sorted(numbers) == [*range(len(names))] else None
    if not isinstance(names, list) or not names or any(type(name) not in (str, int) for name in names):
        raise ValueError(f"{path}: names must list the classes 0, 1, … as text; words such as yes, no need quotes")
    if (count := about.get("nc", len(names))) != len(names):
        given = count if isinstance(count, int) else type(count).__name__
        raise ValueError(f"{path}: nc must be {len(names)}, as many as names lists, got {given}")
    return [str(name) for name in names]


def _images(path: Path, about: dict[str, Any], split: str) -> Iterator[Path]:
    """Yield the images of a split, which is a folder, a text file of paths, or a list of them."""
    base, places = about.get("path") or "", about[split] if isinstance(about[split], list) else [about[split]]
    if any(not isinstance(text, str) for text in (base, *places)):
        raise ValueError(f"{path}: path and {split} must be text, or a list of it")
    for place in places:
        names = place.removeprefix("../"), place  # Roboflow writes ../train/images beside train/
        tried = [path.parent / above / name for name in names for above in (base, "")]
        found = next((here for here in tried if here.exists()), None)
        if found is None and split == "test":  # as Roboflow names it where there is none
            log.info("left out %s, which is not there", place)
            return
        if found is None:
            raise ValueError(f"{path}: {split} is {place}, which is no folder and no file")
        if found.is_dir():
            images = [image for image in found.rglob("*") if image.suffix.lower() in SUFFIXES]
        else:
            images = [found.parent / line.strip() for line in found.read_text().splitlines() if line.strip()]
        if not images:
            raise ValueError(f"{path}: {split} is {found}, which holds no image")
        yield from images


def label_path(image: Path) -> Path:
    """Return where an image's objects are: in labels/ for the last images/ of its path."""
    above, found, below = f"/{image.parent.as_posix()}/".rpartition("/images/")
    folder = f"{above}/labels/{below}" if found else below
    return Path(folder[1:]) / f"{image.stem}.txt"


def _content(images: Any, names: list[str], wrong: list[str]) -> dict[str, Any]:
    """Return COCO's content of a split; what is wrong is appended to `wrong`."""
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    for image_id, path in enumerate(images, start=1):
        try:
            height, width = read_image(path).shape[:2]
        except (ValueError, OSError) as error:
            wrong.append(str(error))
            continue
        content["images"].append({"id": image_id, "file_name": str(path), "width": width, "height": height})
        for entry in _objects(label_path(path), len(names), (width, height), wrong):
            content["annotations"].append(
                {"id": len(content["annotations"]) + 1, "image_id": image_id, "iscrowd": 0} | entry
            )
    return content


def _objects(path: Path, count: int, size: tuple[int, int], wrong: list[str]) -> Iterator[dict[str, Any]]:
    """Yield COCO's fields of the objects in a label file; a line that stands there twice counts once, as in training YOLO."""
    try:
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    except (ValueError, OSError) as error:
        wrong.append(f"{path} is no text: {error}")
        return
    lines: dict[str, int] = {"": 0}
    for number, line in enumerate(text.splitlines(), start=1):
        if lines.setdefault(" ".join(line.split()), number) == number:
            try:
                yield object_of(line, count, size)
            except ValueError as error:
                wrong.append(f"{path}, line {number}: {error}")


def object_of(line: str, count: int, size: tuple[int, int]) -> dict[str, Any]:
    """Return COCO's fields of a line of YOLO's, in an image of `size` (width, height) pixels, with `count` classes.

    >>> object_of("1 0.5 0.5 0.2 0.5", 2, (100, 40))
    {'category_id': 2, 'bbox': [40.0, 10.0, 20.0, 20.0], 'area': 400.0}
    """
    try:
        label, *values = map(float, line.split())
    except ValueError:
        raise ValueError(f"must hold numbers alone, got {line[:60]!r}") from None
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(
            f"must be a class and 4 numbers, or a class and three points or more, got {len(values) + 1} numbers"
        )
    if label not in range(count):
        raise ValueError(f"class must be 0..{count - 1}, as data.yaml names them, got {label:g}")
    if outside := [value for value in values if not 0 <= value <= 1]:
        raise ValueError(f"must be fractions of the image, 0..1, got {outside[0]:g}")
    points = np.array(values).reshape(-1, 2) * size  # (2, 2): centre and sides; or (corners, 2)
    polygon = {} if len(values) == 4 else {"segmentation": [points.ravel().tolist()]}
    low, sides = (points.min(0), np.ptp(points, axis=0)) if polygon else (points[0] - points[1] / 2, points[1])
    area = cv2.contourArea(points.astype(np.float32)) if polygon else float(sides.prod())
    return {"category_id": int(label) + 1, "bbox": [*low.tolist(), *sides.tolist()], "area": area} | polygon
