"""What does each network of a run see in the same few pictures, kept as numbers?

    python -m oscillab.study.recorded_detections --folder results/quick/yolov5n-3bit-seed0 --out data/detections/quick-3bit.json

Of a study's run, the float network and those of each method, in a file of plain numbers that
notebook 07 draws without torch. The pictures themselves are drawn again from their numbers.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from oscillab.data.batches import to_pixels
from oscillab.data.nms import detections
from oscillab.data.scenes import Scenes
from oscillab.io import write_json
from oscillab.provenance import SHIPPED
from oscillab.quant import quant_layers
from oscillab.quant.exact import exact_or_float
from oscillab.yolo import checkpoint

FORMAT, VERSION = "oscillab detections", 1
METHODS = ("lsq", "ema", "lsq+qc", "ema+qc")


@dataclass(frozen=True)
class Options:
    """Which networks and which pictures."""

    folder: Path
    """a run's folder, with lsq.pt, ema.pt, lsq+qc.pt and ema+qc.pt"""
    out: Path
    """the file to write"""
    float_weights: Path = SHIPPED
    """the float network that the run started from"""
    pictures: tuple[int, ...] = tuple(range(12))
    """numbers of held-out scenes"""
    size: int = 160
    """their side in pixels"""
    least: float = 0.25
    """the lowest score that is kept"""


def recorded(options):
    """All that is kept, in what JSON holds."""
    networks = {"fp32": options.float_weights} | {name: options.folder / f"{name}.pt" for name in METHODS}
    models = {name: checkpoint.load(path) for name, path in networks.items()}
    scenes = Scenes(max(options.pictures) + 1, split="val", size=options.size)
    samples = {number: scenes.sample(number) for number in options.pictures}
    truth = {number: rows_of(sample.boxes, sample.labels) for number, sample in samples.items()}
    return {
        "format": FORMAT,
        "version": VERSION,
        "network": models["lsq"].name,
        "layers": list(quant_layers(models["lsq"])),
        "names": list(scenes.names),
        "scenes": {"split": "val", "seed": 0, "size": options.size},
        "least_score": options.least,
        "truth": truth,
        "methods": {
            name: {number: seen(model, sample.image, options.least) for number, sample in samples.items()}
            for name, model in models.items()
        },
    }


def rows_of(boxes, labels):
    """Rows x1, y1, x2, y2, label of annotated boxes."""
    return [[round(float(v), 1) for v in box] + [int(label)] for box, label in zip(boxes, labels, strict=True)]


@torch.no_grad()
def seen(model, image, least):
    """Rows x1, y1, x2, y2, score, label of what the model detects in a picture (H, W, 3), best first."""
    pixels = to_pixels(torch.from_numpy(image).permute(2, 0, 1)[None])  # (1, 3, H, W)
    rows = detections(exact_or_float(model)(pixels), conf=least)[0].tolist()
    return [[*(round(v, 1) for v in row[:4]), round(row[4], 3), int(row[5])] for row in rows]


def main(options):
    """Write the file."""
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, recorded(options))


if __name__ == "__main__":
    main(tyro.cli(Options))
