"""Does an exported file detect what its torch model detects, how large is it, and how fast?

    python -m benchmarks.export runs/qat/ema.pt runs/other/ema.pt --data scenes

For each quantized checkpoint: mAP of torch's exact form and of the file in onnxruntime on the same pictures; how far their
outputs lie apart on some of them; bytes against the FP32 file of the same network; and torch and onnxruntime without the
exact form (the network as it was trained, the file of form "qdq"), each of which rounds in its own order: the measure of how
much of a difference rounding alone makes. Times are wall-clock medians of one batch.
"""

import copy
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from oscillab.data.batches import to_pixels
from oscillab.data.dataset import open_dataset
from oscillab.data.evaluate import evaluate
from oscillab.data.images import letterbox_batch
from oscillab.data.options import DataOptions, DataSource
from oscillab.export.reader import load_onnx
from oscillab.export.write import export_onnx
from oscillab.io import write_json
from oscillab.provenance import hardware
from oscillab.quant import quant_layers
from oscillab.quant.exact import exact
from oscillab.train.config import RunOptions
from oscillab.train.run import prepare
from oscillab.yolo import checkpoint


@dataclass(frozen=True)
class Options:
    """What is measured."""

    weights: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """quantized checkpoints"""
    data: str = "scenes"
    """'scenes' or a folder in COCO's layout"""
    size: int = 160
    held_out: int = 500
    """pictures, for scenes; a folder's validation split is taken whole"""
    both_splits: bool = False
    """a folder's training pictures as well: more pictures for a comparison that does not ask how well a network learnt"""
    compared: int = 16
    """pictures whose outputs are compared"""
    others: bool = True
    """measure what is not of exact form as well"""
    timed: int = 7
    """batches of 8 that are timed; 0: none"""
    run: RunOptions = field(default_factory=RunOptions)


class Joined:
    """The pictures of two data sets of the same classes, one after the other, as one data set."""

    def __init__(self, *parts):
        self.parts, self.names, self.category_ids = parts, parts[0].names, parts[0].category_ids
        self.name = " and ".join(part.name for part in parts)

    def __len__(self):
        return sum(map(len, self.parts))

    def sample(self, index):
        """Return the sample of one of the data sets."""
        first = len(self.parts[0])
        return self.parts[0].sample(index) if index < first else self.parts[1].sample(index - first)

    def ground_truth(self):
        """COCO's annotations of all pictures; COCO's own ids of pictures and of annotations are unique over its splits."""
        each = [part.ground_truth() for part in self.parts]
        return each[0] | {key: [entry for truth in each for entry in truth[key]] for key in ("images", "annotations")}


def pictures_of(options, masks):
    """Return the data set that the options name."""
    dataset = DataSource(DataOptions(options.data, options.size, held_out=options.held_out)).held_out(masks=masks)
    if not options.both_splits:
        return dataset
    return Joined(dataset, open_dataset(options.data, "train", size=options.size))


def to_float(model):
    """Return a copy of a quantized network with plain convolutions, whose float file has the FP32 network's size."""
    model = copy.deepcopy(model)
    for layer in quant_layers(model).values():
        layer.to_float()
    return model


def maps(model, dataset, size):
    """Return mAP of boxes, and of masks where the data set has them and the network gives them; None where classes differ."""
    if model.classes != len(dataset.names):
        return None, None
    found = evaluate(model, dataset, size=size)
    return found.map, found.mask_map


def agreement(model, predictor, dataset, options):
    """Return the largest difference between two networks' outputs over the compared pictures, four at a time."""
    count = min(options.compared, len(dataset))
    apart = 0.0
    with torch.no_grad():
        for part in np.array_split(np.arange(count), -(-count // 4)):
            batch = letterbox_batch(dataset, part, options.size, (options.size, options.size))[0]
            images = to_pixels(batch).contiguous()
            pairs = zip(
                *(one if isinstance(one, tuple) else (one,) for one in (model(images), predictor(images))), strict=True
            )
            apart = max(apart, *(float((a - b).abs().max()) for a, b in pairs))
    return {"compared pictures": count, "largest difference": apart}


def milliseconds(model, images, rounds):
    """Return the median milliseconds per picture of a network's call."""
    seconds = []
    with torch.no_grad():
        for _ in range(rounds + 1):
            begin = time.perf_counter()
            model(images)
            seconds.append(time.perf_counter() - begin)
    return 1000 * float(np.median(seconds[1:])) / len(images)


def speeds(networks, options):
    """Milliseconds per picture of each network, by name."""
    images = torch.rand(8, 3, options.size, options.size)
    return {f"ms {name}": milliseconds(network, images, options.timed) for name, network in networks.items()}


def measure(path, dataset, folder, options):
    """Return what is measured of one checkpoint, a mapping."""
    model = checkpoint.load(path)
    small, other = export_onnx(model, folder / "small.onnx"), export_onnx(model, folder / "other.onnx", form="qdq")
    whole = export_onnx(to_float(model), folder / "float.onnx")
    predictor = load_onnx(small.path)
    row = {"checkpoint": path.parent.name + "/" + path.name, "network": model.name, "bits": model.quant_spec.bits}
    row |= {
        "bytes": small.byte_count,
        "of FP32": small.byte_count / whole.byte_count,
        "batch norms kept, qdq": len(other.kept),
    }
    row["mAP torch"], row["mask mAP torch"] = maps(exact(model), dataset, options.size)
    row["mAP onnx"], row["mask mAP onnx"] = maps(predictor, dataset, options.size)
    row |= agreement(exact(model), predictor, dataset, options)
    if options.others:
        row["mAP torch, as trained"], _ = maps(model, dataset, options.size)
        row["mAP onnx, qdq"], _ = maps(load_onnx(other.path), dataset, options.size)
    if options.timed:
        networks = {"torch": exact(model), "torch, as trained": model}
        networks |= {"onnx": predictor, "onnx, qdq": load_onnx(other.path), "onnx FP32": load_onnx(whole.path)}
        row |= speeds(networks, options)
    return {name: value for name, value in row.items() if value is not None}


def main(options):
    """Print what was measured, a block for each checkpoint."""
    prepare(options.run)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for path in options.weights:
            dataset = pictures_of(options, checkpoint.load(path).task == "segment")
            rows.append(measure(path, dataset, Path(folder), options))
            print(f"{len(dataset)} pictures of {dataset.name}, {options.size} pixels, {hardware()}")
            for name, value in rows[-1].items():
                print(f"  {name:26s} {value:.6g}" if isinstance(value, float) else f"  {name:26s} {value}", flush=True)
    if options.run.json:
        write_json(options.run.json, {"rows": rows, "hardware": hardware()})


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
