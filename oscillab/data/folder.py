"""How does a data set become a folder in COCO's format, as any tool for detectors reads it?

root/annotations/instances_<split>.json    root/images/<split>/<file_name>
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2

from oscillab.io import atomic_write


def write_folder(dataset, root, split):
    """The path of the annotation file of `split`; beside it, the folder at `root` now holds the pictures as PNG.

    `dataset` gives its ground truth in COCO's format and `sample(index)`, such as `Scenes`; with masks, where it was
    opened with masks. Raises OSError where a file cannot be written.
    """
    root = Path(root)
    truth = dataset.ground_truth()
    pictures = root / "images" / split
    pictures.mkdir(parents=True, exist_ok=True)
    for index, entry in enumerate(truth["images"]):
        # By bytes, since OpenCV does not open every path on every system.
        _, data = cv2.imencode(".png", cv2.cvtColor(dataset.sample(index).image, cv2.COLOR_RGB2BGR))
        (pictures / entry["file_name"]).write_bytes(data.tobytes())
    path = root / "annotations" / f"instances_{split}.json"
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(truth))
    return path
