"""Record what the networks of a study's run detect in a few held-out scenes, as numbers that are drawn without torch.

    python -m oscillab.study.fixtures results/quick/yolov5n-3bit-constant-seed0 data/detections/quick-3bit.json

The images themselves are drawn again from their numbers.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from oscillab.data.batches import to_pixels
from oscillab.data.nms import detections
from oscillab.data.scenes import Scenes
from oscillab.io import shipped, write_json
from oscillab.quant import quant_layers
from oscillab.quant.exact import exact_or_float
from oscillab.yolo import checkpoint

FORMAT, VERSION = "oscillab detections", 1
METHODS = ("lsq", "ema", "lsq+qc", "ema+qc")
LEAST_SCORE = 0.25


def recorded_detections(folder: Path, *, images: Sequence[int] = range(12), size: int = 160) -> dict[str, Any]:
    """Return what the networks in a run's folder find in held-out scenes of these numbers, in what JSON holds."""
    networks = {"fp32": shipped("yolov5n-scenes.pt")} | {name: folder / f"{name}.pt" for name in METHODS}
    models = {name: checkpoint.load(path) for name, path in networks.items()}
    scenes, found = Scenes(max(images) + 1, split="val", size=size), {}
    samples = {number: scenes.sample(number) for number in images}
    for name, model in models.items():
        found[name] = {number: found_rows(model, sample.image) for number, sample in samples.items()}
    about = {"format": FORMAT, "version": VERSION, "network": models["lsq"].name}
    about |= {"layers": list(quant_layers(models["lsq"])), "names": list(scenes.names)}
    about |= {"scenes": {"split": "val", "seed": 0, "size": size}, "least_score": LEAST_SCORE}
    truth = {number: box_rows(sample.boxes, sample.labels) for number, sample in samples.items()}
    return about | {"truth": truth, "methods": found}


def box_rows(boxes: Iterable[Any], labels: Iterable[Any]) -> list[list[float]]:
    """Return rows x1, y1, x2, y2, label of annotated boxes."""
    return [[round(float(v), 1) for v in box] + [int(label)] for box, label in zip(boxes, labels, strict=True)]


def found_rows(model: nn.Module, image: np.ndarray) -> list[list[float]]:
    """Return rows x1, y1, x2, y2, score, label of what a model detects in an image (H, W, 3), best first."""
    pixels = to_pixels(torch.from_numpy(image).permute(2, 0, 1)[None])  # (1, 3, H, W)
    with torch.no_grad():
        rows = detections(exact_or_float(model)(pixels), conf=LEAST_SCORE)[0].tolist()
    return [[*(round(v, 1) for v in row[:4]), round(row[4], 3), int(row[5])] for row in rows]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m oscillab.study.fixtures FOLDER_OF_A_RUN FILE.json")
    torch.set_num_threads(1)
    write_json(sys.argv[2], recorded_detections(Path(sys.argv[1])))
