"""Do pictures come faster than the network trains on them?

    python -m benchmarks.data_path                      # scenes
    python -m benchmarks.data_path --coco ../shared/coco

Milliseconds a picture in one process: drawing a scene, and of a COCO folder reading, reading again and YOLOv5's recipe
(mosaic, affine, HSV, flip), beside an LSQ step of the same picture size.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import tyro

from benchmarks import steps
from benchmarks.interleaved import clock_for
from oscillab.data.augment import Augment
from oscillab.data.batches import Batches
from oscillab.data.dataset import CocoFolder
from oscillab.data.scenes import Scenes
from oscillab.provenance import hardware


@dataclass(frozen=True)
class Options:
    """What is measured."""

    sizes: tuple[int, ...] = (160, 320)
    batch_size: int = 16
    pictures: int = 64
    coco: Path | None = None
    autocast: bool = True


def milliseconds(function, count, rounds=5):
    """Return the median over `rounds` of the milliseconds that a call of function(number) takes, `count` calls a round."""
    clock, taken = clock_for(), []
    for number in range(rounds):
        begin = clock()
        for call in range(count):
            function(number * count + call)
        taken.append((clock() - begin) / count * 1000)
    return float(np.median(taken))


def network(options, size):
    """Milliseconds a picture of an LSQ step, in bfloat16 where training is."""
    about = replace(steps.Options(), size=size, batch_size=options.batch_size, autocast=options.autocast)
    _, quantized, batches = steps.start(about)
    run = steps.Run(quantized, batches, autocast=options.autocast)
    run.step(0)
    return milliseconds(run.step, 2) / options.batch_size


def scenes(options, size, trained):
    """Print the line of scenes of a size."""
    data = Batches(
        Scenes(10**6, split="train", size=size, masks=False), size=size, batch_size=options.batch_size, shuffle=False
    )
    drawn = (
        milliseconds(lambda number: data.batch(0, number), options.pictures // options.batch_size) / options.batch_size
    )
    print(
        f"scenes, {size} pixels: {drawn:.2f} ms a picture, training {trained:.2f} ms: {trained / drawn:.1f} times as long"
    )


def coco(options, size, trained):
    """Print the line of a COCO folder."""
    data, recipe = CocoFolder(options.coco, "train2017"), Augment()
    count = min(options.pictures, len(data)) // 5
    first = milliseconds(data.sample, count)
    again = milliseconds(lambda number: data.sample(number % (5 * count)), count)
    for index in range(len(data)):
        data.sample(index)
    varied = milliseconds(lambda n: recipe(data, n % len(data), size, np.random.default_rng(n)), count)
    print(
        f"COCO, {size} pixels: read {first:.2f} ms a picture, read again {again:.3f} ms, the whole recipe {varied:.2f} ms, "
        f"training {trained:.2f} ms: {trained / varied:.1f} times as long"
    )


def main(options):
    """Print the table."""
    cv2.setNumThreads(0)
    for size in options.sizes:
        trained = network(options, size)
        if size == options.sizes[0]:
            print(f"yolov5n W4A4{', bfloat16' * options.autocast}, batch {options.batch_size}, {hardware()}")
        scenes(options, size, trained)
        if options.coco:
            coco(options, size, trained)


if __name__ == "__main__":
    main(tyro.cli(Options))
