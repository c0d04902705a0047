"""How long does an evaluation take outside the network?

    python -m benchmarks.evaluation --data ../shared/coco --splits val2017 train2017 --weights ../shared/coco/yolov5n.pt

Seconds of an evaluation as it is published (square letterbox of 640 pixels, confidence 0.001, pycocotools), and of it
those that the network took; without `--data` on scenes with the shipped detector.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
import tyro

from benchmarks.interleaved import clock_for
from oscillab.data import evaluate
from oscillab.data.dataset import CocoFolder
from oscillab.data.scenes import Scenes
from oscillab.provenance import SHIPPED, hardware
from oscillab.train.run import placed
from oscillab.yolo import checkpoint


@dataclass(frozen=True)
class Options:
    """What is measured."""

    data: Path | None = None
    splits: tuple[str, ...] = ("val2017",)
    weights: Path = SHIPPED
    size: int = 640
    count: int = 100
    """scenes, where no folder is given"""
    batch_size: int = 16
    threads: int = 1


def main(options):
    """Print a line for each split and one for all."""
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(0)
    model = placed(checkpoint.load(options.weights), "cpu")
    if options.data:
        datasets = [CocoFolder(options.data, split, cache_bytes=0) for split in options.splits]
    else:
        datasets = [Scenes(options.count, split="val", size=options.size)]
    evaluate.time = type(
        "Clock", (), {"perf_counter": staticmethod(clock_for())}
    )  # the clock that a busy machine suits
    total = network = count = 0
    print(f"{options.weights.name}, {options.size} pixels, batch {options.batch_size}, {hardware()}")
    try:
        for dataset in datasets:
            found = evaluate.evaluate(model, dataset, size=options.size, batch_size=options.batch_size)
            total, network = total + found.seconds, network + found.network_seconds
            count += found.image_count
            print_line(f"{dataset.name}, {found.image_count} pictures", found.seconds, found.network_seconds)
    finally:
        evaluate.time = time
    if len(datasets) > 1:
        print_line(f"all {count} pictures", total, network)


def print_line(name, total, network):
    """Print the seconds in and outside the network."""
    outside = total - network
    print(f"{name}: network {network:.1f} s, outside it {outside:.1f} s, {outside / network:.1%} of the network's time")


if __name__ == "__main__":
    main(tyro.cli(Options))
