"""Plan a study: what it will run, for how long, and whether all is there that it needs.

The time comes from steps measured on the spot, forward to Adam, at the study's image size: an estimate, since data,
evaluation and other programs take their share as well.
"""

import shutil
import time
from collections import Counter
from collections.abc import Sequence

import torch

from oscillab.data.batches import Batch
from oscillab.data.options import DataSource, check_classes
from oscillab.quant import quantize
from oscillab.study.config import Study
from oscillab.study.grid import Job
from oscillab.study.job import STATUSES, missing, status
from oscillab.study.text import width
from oscillab.train.run import placed, prepare
from oscillab.train.trainer import Trainer
from oscillab.yolo import zoo
from oscillab.yolo.loss import build_loss

PROBE_BATCH = 4  # images in a measured step
FORWARD_SHARE = 0.35  # of a training step that one forward pass takes
BYTES_PER_PARAMETER = 40  # of a job's folder: networks, optimizer and recorder while it runs, recordings


def check_data(study: Study, jobs: Sequence[Job], source: DataSource) -> None:
    """Raise ValueError where a data set is missing or has other classes than a checkpoint, or the disk is too small."""
    for weights in {job.weights.path: job.weights for job in jobs}.values():
        masks = weights.network.endswith("-seg")
        for dataset in (source.training_batches(0, masks=masks).dataset, source.held_out(masks=masks)):
            check_classes(weights, dataset, weights.path)
    parameters = sum(job.weights.parameter_count for job in jobs if not job.folder.exists())
    study.folder.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(study.folder).free, BYTES_PER_PARAMETER * parameters
    if needed > free:
        raise ValueError(f"{study.folder} has {free / 1e9:.1f} GB free, the study needs about {needed / 1e9:.1f} GB")


def text(study: Study, jobs: Sequence[Job], source: DataSource) -> str:
    """Return the plan, a line per network and width: how many runs of how many steps, and how long the rest takes."""
    first = {job.weights.network: job for job in reversed(jobs)}
    seconds = {network: seconds_per_image(job) for network, job in first.items()}
    lines, total = [], 0.0
    for network, bits in dict.fromkeys((job.weights.network, job.bits) for job in jobs):
        group = [job for job in jobs if (job.weights.network, job.bits) == (network, bits)]
        left = sum(images_left(job, source) for job in group) * seconds[network]
        total += left
        lines.append(f"{network} {width(*bits)} bit: {_group_text(group, source)}, {duration(left)}")
    device = "GPU" if study.run.device.startswith("cuda") else "CPU"
    hours = f", {total / 3600:.1f} {device}-hours" if total > 3600 else ""
    end = f"about {duration(total / min(study.jobs, len(jobs)))} in all with {study.jobs} at once{hours}"
    return "\n".join([*lines, end])


def _group_text(group: Sequence[Job], source: DataSource) -> str:
    """Say how many runs a group has, of how many steps, and how far they came."""
    counts = Counter(status(job) for job in group)
    how = ", ".join(f"{counts[name]} {name}" for name in STATUSES if counts[name])
    steps = group[0].train.epochs * len(source.training_batches(0))
    arms = ", ".join(dict.fromkeys(job.arm for job in group))
    seeds = " ".join(dict.fromkeys(str(job.seed) for job in group))
    return f"{len(group)} runs ({how}) of {steps} steps, arms {arms}, seeds {seeds}"


def images_left(job: Job, source: DataSource) -> float:
    """Return how many images' worth of training steps a job still takes; one that is measured on takes a third of one."""
    batches, left = source.training_batches(0), missing(job)
    measured = len(source.held_out()) * FORWARD_SHARE
    corrected = sum(control.startswith(("qc", "bn_affine")) for _, _, control in left)
    training = 0 if (job.folder / "run.json").is_file() else job.train.epochs
    passes = training + job.correction.epochs * corrected
    return passes * len(batches) * batches.batch_size + len(left) * measured


def seconds_per_image(job: Job) -> float:
    """Return the seconds that an image takes in a training step of the job's network, measured now, on its device."""
    prepare(job.run)
    size, classes = job.data.size, job.weights.classes
    images = torch.randint(0, 256, (PROBE_BATCH, 3, size, size), dtype=torch.uint8)
    model = zoo.build(job.weights.network, classes)
    quantize(placed(model, "cpu"), job.quant, [images.float() / 255])
    trainer = Trainer(placed(model, job.run.device), build_loss(model), [None], job.train, progress=False)
    targets = torch.tensor([[n, n % classes, 0.5, 0.5, 0.2, 0.2] for n in range(PROBE_BATCH)])
    masks = [torch.ones(1, size, size, dtype=torch.uint8) for _ in images] if model.task == "segment" else None
    for _ in range(2):  # the first step is slower
        started = time.perf_counter()
        trainer.train_step(Batch(images, targets, masks, []))
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - started) / PROBE_BATCH


def duration(seconds: float) -> str:
    """Return seconds as a reader says them.

    >>> duration(42), duration(400), duration(20_000)
    ('42 s', '7 min', '5.6 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
