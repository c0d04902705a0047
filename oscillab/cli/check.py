"""The command `check`: say what a data set holds, and what is wrong with it, before it is trained on."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro


@dataclass(frozen=True)
class Check:
    """Say what is wrong with a data set in COCO's layout, and what it holds; the exit status is 1 where something is."""

    folder: Annotated[Path, tyro.conf.Positional]
    """the folder that --data would name"""
    images: bool = True
    """also read every image"""
    json: Path | None = None
    """also write what was found to this file"""


def check(options: Check) -> dict[str, Any]:
    """Return what each split of a folder holds and what is wrong with it, as text and as a mapping."""
    from oscillab.data.dataset import splits_of
    from oscillab.study.text import lines

    found: dict[str, Any] = {}
    texts = []
    for split in splits_of(options.folder):
        found[split] = check_split(options.folder, split, read=options.images)
        faults = found[split].get("faults", [])
        shown = {name: value for name, value in found[split].items() if name != "faults"}
        texts.append("\n".join([f"{split}:", lines(shown), *(f"error: {fault}" for fault in faults)]))
    names = {split: values.get("classes") for split, values in found.items()}
    if len(set(names.values())) > 1:
        texts.append(f"error: the splits have other classes: {names}")
    wrong = len(set(names.values())) > 1 or any(values.get("faults") for values in found.values())
    return {"text": "\n\n".join(texts), "status": int(wrong), **found}


def check_split(root: Path, split: str, *, read: bool) -> dict[str, Any]:
    """Return the counts of a split and the faults that opening, or reading its images, finds."""
    from oscillab.data.annotations import SHOWN, faults, mended, parse
    from oscillab.data.dataset import CocoFolder

    path = root / "annotations" / f"instances_{split}.json"
    try:
        content = parse(path)
        if wrong := faults(content):
            more = [f"{len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
            return {"faults": [*wrong[:SHOWN], *more]}
        dataset = CocoFolder(root, split)
    except ValueError as error:
        return {"faults": [str(error)]}
    boxes = Counter(entry["category_id"] for entry in content["annotations"])
    names = {category["id"]: category["name"] for category in content["categories"]}
    sides = [(image["width"], image["height"]) for image in content["images"]]
    used = {entry["image_id"] for entry in content["annotations"]}
    described = {
        "images": len(dataset),
        "classes": ", ".join(dataset.names),
        "boxes": ", ".join(f"{names[number]} {boxes[number]}" for number in sorted(names)),
        "mended": "; ".join(mended(content)[1]) or "nothing",
        "crowds": sum(bool(entry.get("iscrowd")) for entry in content["annotations"]),
        "without masks": sum(not entry.get("segmentation") for entry in content["annotations"]),
        "images without objects": sum(image["id"] not in used for image in content["images"]),
        "sizes": f"{min(sides)[0]}x{min(sides)[1]} to {max(sides)[0]}x{max(sides)[1]} pixels",
    }
    return described | (check_images(dataset) if read else {})


def check_images(dataset: Any) -> dict[str, Any]:
    """Return which images are the same as another, and which cannot be read or have another size than annotated."""
    import hashlib

    seen: dict[str, str] = {}
    twice, wrong = [], []
    for index, path in enumerate(dataset.image_paths()):
        try:
            dataset.sample(index)
        except (ValueError, OSError) as error:
            wrong.append(str(error))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest in seen:
            twice.append(f"{path.name} = {seen[digest]}")
        seen.setdefault(digest, path.name)
    return {"same images": ", ".join(twice[:10]) or "none", "faults": wrong[:10]}
