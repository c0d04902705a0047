"""What will a study run, for how long, and is all there that it needs?

The time comes from steps measured on the spot, forward to Adam, at the study's picture size: an estimate, since data,
evaluation and other programs take their share as well.
"""

import shutil
import time
from collections import Counter

import torch

from oscillab.data.batches import Batch
from oscillab.data.options import check_classes, held_out, training_batches
from oscillab.plot.text import width
from oscillab.quant import quantize
from oscillab.study import state
from oscillab.train.run import placed, prepare
from oscillab.train.trainer import Trainer
from oscillab.yolo import checkpoint, zoo
from oscillab.yolo.loss import build_loss

PROBE_BATCH = 4  # pictures in a measured step
FORWARD_SHARE = 0.35  # of a training step that one forward pass takes
BYTES_PER_PARAMETER = 40  # of a job's folder: networks, optimizer and recorder while it runs, recordings


def check_data(options, jobs):
    """Raise ValueError where a data set is missing or has other classes than a checkpoint, or the disk is too small."""
    needed = 0
    for network, weights in {job.network: job.qat.weights for job in jobs}.items():
        masks = network.endswith("-seg")
        model = zoo.build(network, checkpoint.inspect(weights).classes)
        for dataset in (training_batches(options.data, 0, masks=masks).dataset, held_out(options.data, masks=masks)):
            check_classes(model, dataset, weights)
        count = sum(job.network == network and not job.folder.exists() for job in jobs)
        needed += count * BYTES_PER_PARAMETER * sum(p.numel() for p in model.parameters())
    options.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(options.folder).free
    if needed > free:
        raise ValueError(f"{options.folder} has {free / 1e9:.1f} GB free, the study needs about {needed / 1e9:.1f} GB")


def text(options, jobs):
    """The plan, a line per network and width: how many runs of how many steps, what is done, how long the rest takes."""
    seconds = {network: seconds_per_picture(options, job) for network, job in first_of_each(jobs).items()}
    lines, total = [], 0.0
    for network, bits in dict.fromkeys((job.network, job.bits) for job in jobs):
        group = [job for job in jobs if (job.network, job.bits) == (network, bits)]
        left = sum(pictures_left(options, job) for job in group) * seconds[network]
        total += left
        lines.append(f"{network} {width(*bits)} bit: {group_text(options, group)}, {duration(left)}")
    hours = f", {total / 3600:.1f} {device_word(options)}-hours" if total > 3600 else ""
    end = f"about {duration(total / min(options.jobs, len(jobs)))} in all with {options.jobs} at once{hours}"
    return "\n".join([*lines, end])


def first_of_each(jobs):
    """Network -> its first job."""
    return {job.network: job for job in reversed(jobs)}


def group_text(options, group):
    """How many runs a group has, of how many steps, and how far they came."""
    counts = Counter(state.status(job) for job in group)
    arms = ", ".join(dict.fromkeys(job.arm for job in group))
    how = ", ".join(f"{counts[name]} {name}" for name in state.STATUSES if counts[name])
    steps = options.train.epochs * len(training_batches(options.data, 0))
    return f"{len(group)} runs ({how}) of {steps} steps, arms {arms}, seeds {seeds(group)}"


def seeds(group):
    """The seeds of a group of jobs, as text."""
    return " ".join(str(seed) for seed in dict.fromkeys(job.seed for job in group))


def pictures_left(options, job):
    """How many pictures' worth of training steps a job still takes; a picture that is measured on takes a third of one."""
    batches = training_batches(job.qat.data, 0)
    one_pass = len(batches) * batches.batch_size
    measured = len(held_out(job.qat.data)) * FORWARD_SHARE
    left = state.missing(job)
    trained = [control for _, _, control in left if control.startswith(("qc", "bn_affine"))]
    training = 0 if (job.folder / "run.json").is_file() else job.qat.train.epochs
    return (training + options.qc_epochs * len(trained)) * one_pass + len(left) * measured


def seconds_per_picture(options, job):
    """The seconds that a picture takes in a training step of the job's network, measured now, on its device."""
    prepare(job.qat.run)
    size, device = options.data.size, job.qat.run.device
    classes = checkpoint.inspect(job.qat.weights).classes
    images = torch.randint(0, 256, (PROBE_BATCH, 3, size, size), dtype=torch.uint8)
    model = quantize(placed(zoo.build(job.network, classes), "cpu"), job.qat.quant, [images.float() / 255])
    trainer = Trainer(placed(model, device), build_loss(model), [None], job.qat.train, progress=False)
    batch = Batch(images, some_targets(classes), some_masks(size) if model.task == "segment" else None, [])
    for _ in range(2):  # the first step is slower
        started = time.perf_counter()
        trainer.train_step(batch)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - started) / PROBE_BATCH


def some_targets(classes):
    """One object in each picture, rows (picture, class, cx, cy, w, h)."""
    return torch.tensor([[number, number % classes, 0.5, 0.5, 0.2, 0.2] for number in range(PROBE_BATCH)])


def some_masks(size):
    """The masks of `some_targets`, one (1, size, size) for each picture."""
    return [torch.ones(1, size, size, dtype=torch.uint8) for _ in range(PROBE_BATCH)]


def device_word(options):
    """What hours are counted of."""
    return "GPU" if options.run.device.startswith("cuda") else "CPU"


def duration(seconds):
    """Seconds as a reader says them.

    >>> duration(42), duration(400), duration(20_000)
    ('42 s', '7 min', '5.6 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
