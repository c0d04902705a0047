"""Open and write folders in COCO's format, so that training and evaluation read them as they read the scenes.

root/annotations/instances_<split>.json    root/images/<split>/<file_name>   (or root/<split>/<file_name>)
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from oscillab.data.annotations import clip_box, read_annotations
from oscillab.data.images import Dataset, Sample, decode_mask, encode_runs, read_image, write_image
from oscillab.data.scenes import SPLITS, Scenes
from oscillab.io import atomic_write


class CocoFolder:
    """The images of one split of a COCO-format folder; crowds count for evaluation only, never as boxes to learn.

    Decoded images are kept in memory where the whole split takes no more than `cache_bytes`; they are read-only.
    Raises ValueError for whatever is wrong with the annotation file (see `read_annotations`) and for missing images.
    """

    fresh = False

    def __init__(
        self, root: Path | str, split: str = "val2017", *, masks: bool = False, cache_bytes: int = 2**29
    ) -> None:
        self.root, self.split, self.masks = Path(root), split, masks
        self.path = self.root / "annotations" / f"instances_{split}.json"
        if not self.path.is_file() and split not in (found := splits_of(self.root)):
            raise ValueError(f"the data set {str(root)!r} has no split {split!r}; it has {', '.join(found)}")
        self._content = read_annotations(self.path)
        self._images = self._content["images"]
        ids = [str(category["id"]) for category in self._content["categories"]]
        number: Any = int if all(map(str.isdecimal, ids)) else lambda value: value  # "10" stands behind "2"
        categories = sorted(self._content["categories"], key=lambda category: number(category["id"]))
        self.name = self.root.resolve().name
        self.names = [category["name"] for category in categories]
        self.category_ids = [category["id"] for category in categories]
        self._folder = image_folder(self.root, split)
        there = {path.name for path in self._folder.iterdir()} if self._folder.is_dir() else set()
        names = [image["file_name"] for image in self._images]
        if lost := [name for name in names if name not in there and not (self._folder / name).is_file()]:
            some = f"{len(lost)} of them are missing in {self._folder}, the first is {lost[0]}"
            raise ValueError(f"{self.path} lists {len(names)} images, {some}")
        # All or none: of a set that is drawn from at random, keeping a part saves no more than that part.
        size = sum(3 * image["height"] * image["width"] for image in self._images)
        self._decoded: dict[int, np.ndarray] | None = {} if size <= cache_bytes else None
        self._objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for entry in self._content["annotations"]:
            if not entry["iscrowd"]:
                self._objects[entry["image_id"]].append(entry)
        if masks:
            self._check_masks()

    def __len__(self) -> int:
        return len(self._images)

    @staticmethod
    def write(dataset: Dataset, root: Path | str, split: str) -> Path:
        """Write a data set, its images as PNG, as the split of a folder; return the path of the annotation file.

        With masks, where the data set was opened with masks. Raises OSError where a file cannot be written.
        """
        truth = dataset.ground_truth()
        images = Path(root) / "images" / split
        for index, entry in enumerate(truth["images"]):
            write_image(dataset.sample(index).image, images / entry["file_name"])
        path = Path(root) / "annotations" / f"instances_{split}.json"
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(truth))
        return path

    def with_masks(self) -> CocoFolder:
        """Return this data set with masks, without opening its file again; raises ValueError where some are missing."""
        other = copy.copy(self)
        other.masks = True
        other._check_masks()
        return other

    def image_paths(self) -> list[Path]:
        """Return the files of the images, in their order."""
        return [self._folder / image["file_name"] for image in self._images]

    def sample(self, index: int) -> Sample:
        """Return the Sample number `index`, with boxes cut to the image; raise ValueError when its file cannot be read.

        Its pixels are kept for the next call and cannot be written to: copy them first (`sample.image.copy()`).
        """
        image, kept = self._images[index], {} if self._decoded is None else self._decoded
        if index not in kept:
            kept[index] = self._read(image)
            kept[index].flags.writeable = False
        pixels = kept[index]
        objects = self._objects[image["id"]]
        boxes = np.array([clip_box(entry["bbox"], image) for entry in objects], dtype=np.float32).reshape(-1, 4)
        labels = np.array([self.category_ids.index(entry["category_id"]) for entry in objects], dtype=np.int64)
        shape = pixels.shape[:2]
        planes = [decode_mask(entry["segmentation"], *shape) for entry in objects] if self.masks else []
        masks = np.array(planes, dtype=np.uint8).reshape(-1, *shape) if self.masks else None
        return Sample(pixels, boxes, labels, masks, image["id"])

    def ground_truth(self) -> dict[str, Any]:
        """Return the annotation file's content in COCO's format, crowds included, with the id that pycocotools needs.

        Run lengths of another size than their image's (images were shrunk, crowds forgotten) are brought to it.
        """
        images = {image["id"]: image for image in self._images}
        annotations = []
        for number, entry in enumerate(self._content["annotations"], start=1):
            runs, image = entry.get("segmentation"), images[entry["image_id"]]
            shape = image["height"], image["width"]
            if isinstance(runs, dict) and runs["size"] != [*shape]:
                entry = entry | {"segmentation": encode_runs(decode_mask(runs, *shape))}
            annotations.append({"id": number} | entry)
        return self._content | {"annotations": annotations}

    def with_names(self, names: list[str]) -> CocoFolder:
        """Return this data set with its classes in the order of `names`, which are its own."""
        other = copy.copy(self)
        ids = dict(zip(self.names, self.category_ids, strict=True))
        other.names, other.category_ids = list(names), [ids[name] for name in names]
        return other

    def _check_masks(self) -> None:
        if lost := [e for objects in self._objects.values() for e in objects if not e.get("segmentation")]:
            some = f"{len(lost)} objects have no 'segmentation', the first in image {lost[0]['image_id']}"
            raise ValueError(
                f"{self.path}: {some}: give annotations with masks, or take a network without (masks=False)"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return the data set without images, for a worker process that is sent one."""
        return {**self.__dict__, "_decoded": None if self._decoded is None else {}}

    def _read(self, image: dict[str, Any]) -> np.ndarray:
        path, said = self._folder / image["file_name"], (image["height"], image["width"])
        pixels = read_image(path)
        if pixels.shape[:2] == said:
            return pixels
        turned = ": its EXIF tag turns it; annotate it as it is shown, or turn its pixels and drop the tag"
        hint = turned if pixels.shape[1::-1] == said else ""
        raise ValueError(f"the image {path} has {pixels.shape[:2]} rows and columns, its annotations say {said}{hint}")


def open_dataset(
    text: str, split: str = "val", *, size: int = 160, count: int = 500, seed: int = 0, masks: bool = False
) -> Scenes | CocoFolder:
    """Open the data set that `text` names: "scenes" (`count` images of `size` pixels), or else a COCO-format folder.

    The folder's split may be written short: "val" opens val2017 where there is no split of the name "val".
    """
    if text == "scenes":
        short = split.removesuffix("2017")
        return Scenes(count, split=short if short in SPLITS else split, seed=seed, size=size, masks=masks)
    splits, long = splits_of(Path(text)), f"{split}2017"
    return CocoFolder(text, long if split not in splits and long in splits else split, masks=masks)


def image_folder(root: Path, split: str) -> Path:
    """Return the folder of a split's images: root/images/<split>, or root/<split>, as COCO's archives unpack."""
    folders = [root / "images" / split, root / split]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def splits_of(root: Path) -> list[str]:
    """Return the splits of a COCO-format folder; raise ValueError, with the layout that it has instead, for another one."""
    if not root.is_dir():
        raise ValueError(f"no data set {str(root)!r}: give 'scenes' or the path of a COCO-format folder")
    wanted = "COCO's has annotations/instances_<split>.json and images/<split>/"
    if found := sorted((root / "annotations").glob("instances_*.json")):
        return [path.stem.removeprefix("instances_") for path in found]
    if any(root.glob("*/_annotations.coco.json")):
        layout = "Roboflow's layout (<split>/_annotations.coco.json)"
    elif (root / "labels").is_dir() or any(root.glob("*/labels")) or any(root.glob("*.yaml")):
        layout = "YOLO's layout (labels/*.txt)"
    else:
        raise ValueError(f"{root} holds no data set: {wanted}")
    raise ValueError(f"{root} is in {layout}: {wanted}; `oscillab convert {root} OUT` writes them")
