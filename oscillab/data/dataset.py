"""How is any folder in COCO's format opened, so that training and evaluation read it as they read the scenes?

root/annotations/instances_<split>.json    root/images/<split>/<file_name>   (or root/<split>/<file_name>)
"""

from __future__ import annotations

import copy
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from oscillab.data.annotations import clip_box, read_annotations
from oscillab.data.sample import Sample, decode_runs, draw_polygons, encode_runs
from oscillab.data.scenes import SPLITS, Scenes


class CocoFolder:
    """The pictures of one split of a COCO-format folder; crowds count for evaluation only, never as boxes to learn.

    Decoded pictures are kept in memory where the whole split takes no more than `cache_bytes`; they are read-only.
    Raises ValueError for whatever is wrong with the annotation file (see `read_annotations`) and for missing pictures.
    """

    fresh = False

    def __init__(self, root, split="val2017", *, masks=False, cache_bytes=2**29):
        self.root, self.split, self.masks = Path(root), split, masks
        self.path = self.root / "annotations" / f"instances_{split}.json"
        self._content = read_annotations(self.path)
        self._images = self._content["images"]
        categories = sorted(self._content["categories"], key=lambda category: category["id"])
        self.name = self.root.resolve().name
        self.names = [category["name"] for category in categories]
        self.category_ids = [category["id"] for category in categories]
        self._folder = self._find_folder()
        self._check_pictures()
        self._labels = {number: label for label, number in enumerate(self.category_ids)}
        # All or none: of a set that is drawn from at random, keeping a part saves no more than that part.
        size = sum(3 * image["height"] * image["width"] for image in self._images)
        self._decoded = {} if size <= cache_bytes else None
        self._objects = defaultdict(list)
        for entry in self._content["annotations"]:
            if not entry.get("iscrowd"):
                self._objects[entry["image_id"]].append(entry)
        if masks:
            self._check_masks()

    def __len__(self):
        return len(self._images)

    def with_masks(self) -> CocoFolder:
        """Return this data set with masks, without opening its file again; raises ValueError where some are missing."""
        other = copy.copy(self)
        other.masks = True
        other._check_masks()
        return other

    def sample(self, index):
        """The Sample number `index`, with boxes cut to the picture; raises ValueError when its file cannot be read.

        Its pixels are kept for the next call and cannot be written to: copy them first (`sample.image.copy()`).
        """
        image = self._images[index]
        pixels = self._pixels(index, image)
        objects = self._objects[image["id"]]
        boxes = np.array([clip_box(entry["bbox"], image) for entry in objects], dtype=np.float32).reshape(-1, 4)
        labels = np.array([self._labels[entry["category_id"]] for entry in objects], dtype=np.int64)
        masks = None
        if self.masks:
            masks = np.zeros((len(objects), *pixels.shape[:2]), dtype=np.uint8)
            for mask, entry in zip(masks, objects, strict=True):
                mask[:] = self._mask(entry, image)
        return Sample(pixels, boxes, labels, masks, image["id"])

    def ground_truth(self):
        """The annotation file's content in COCO's format, crowds included, with the area and id that pycocotools needs.

        Run lengths of another size than their picture's (pictures were shrunk, crowds forgotten) are brought to it.
        """
        images = {image["id"]: image for image in self._images}
        annotations = []
        for number, entry in enumerate(self._content["annotations"], start=1):
            runs, image = entry.get("segmentation"), images[entry["image_id"]]
            extra = {"id": number, "iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3]} | entry
            if isinstance(runs, dict) and list(runs["size"]) != [image["height"], image["width"]]:
                extra["segmentation"] = encode_runs(_fit_runs(runs, image))
            annotations.append(extra)
        return self._content | {"annotations": annotations}

    def _find_folder(self):
        """The folder of the pictures: images/<split>, or <split> as the COCO archives unpack."""
        folders = [self.root / "images" / self.split, self.root / self.split]
        return next((folder for folder in folders if folder.is_dir()), folders[0])

    def _check_pictures(self):
        there = {path.name for path in self._folder.iterdir()} if self._folder.is_dir() else set()
        names = [image["file_name"] for image in self._images]
        lost = [name for name in names if name not in there and not (self._folder / name).is_file()]
        if lost:
            raise ValueError(
                f"{self.path} lists {len(names)} pictures, {len(lost)} of them are missing in {self._folder}, "
                f"the first is {lost[0]}"
            )

    def _check_masks(self):
        lost = [entry for objects in self._objects.values() for entry in objects if not entry.get("segmentation")]
        if lost:
            raise ValueError(
                f"{self.path}: {len(lost)} objects have no 'segmentation', the first in image {lost[0]['image_id']}: give "
                "annotations with masks, or take a network without (masks=False)"
            )

    def _pixels(self, index, image):
        """The picture (H, W, 3) RGB, read-only where it is kept."""
        if self._decoded is None:
            return self._read(image)
        pixels = self._decoded.get(index)
        if pixels is None:
            pixels = self._decoded[index] = self._read(image)
            pixels.flags.writeable = False
        return pixels

    def __getstate__(self):
        """The data set without pictures, for a worker process that is sent one."""
        return {**self.__dict__, "_decoded": None if self._decoded is None else {}}

    def _read(self, image):
        """The picture (H, W, 3) RGB; by bytes, since OpenCV does not open every path on every system."""
        path = self._folder / image["file_name"]
        data = np.fromfile(path, dtype=np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if pixels is None:
            raise ValueError(f"the picture {path} cannot be read: it is no JPEG, PNG or other image")
        if pixels.shape[:2] != (image["height"], image["width"]):
            found, said = pixels.shape[:2], (image["height"], image["width"])
            raise ValueError(f"the picture {path} has {found} rows and columns, its annotations say {said}")
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    def _mask(self, entry, image):
        segmentation = entry["segmentation"]
        if isinstance(segmentation, dict):
            return _fit_runs(segmentation, image)
        return draw_polygons(segmentation, image["height"], image["width"])


def open_dataset(text, split="val", *, size=160, count=500, seed=0, masks=False):
    """The data set that `text` names: "scenes" (`count` pictures of `size` pixels), or else a COCO-format folder.

    The folder's split may be written short: "val" opens val2017 where there is no split of the name "val".
    """
    if text == "scenes":
        short = split.removesuffix("2017")
        return Scenes(count, split=short if short in SPLITS else split, seed=seed, size=size, masks=masks)
    root = Path(text)
    if not root.is_dir():
        raise ValueError(f"no data set {text!r}: give 'scenes' or the path of a COCO-format folder")
    found = sorted((root / "annotations").glob("instances_*.json"))
    splits = [path.stem.removeprefix("instances_") for path in found]
    if split not in splits and f"{split}2017" in splits:
        split = f"{split}2017"
    if split not in splits:
        raise ValueError(f"the data set {text!r} has no split {split!r}; it has {', '.join(splits) or 'none'}")
    return CocoFolder(root, split, masks=masks)


def _fit_runs(runs, image):
    """The mask of run lengths at the picture's own size."""
    mask = decode_runs(runs)
    shape = image["width"], image["height"]
    return cv2.resize(mask, shape, interpolation=cv2.INTER_NEAREST_EXACT) if mask.shape[::-1] != shape else mask
