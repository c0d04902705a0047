"""How much memory does a quantized step need beside a float one?

    python -m benchmarks.memory --size 320 --batch-size 16

Two answers. What the forward pass keeps for the backward pass, counted with hooks, each memory once, parameters left out.
And the peak of a fresh process's resident memory over three training steps, above what it held before the first.
"""

import multiprocessing
import resource
import sys
from dataclasses import dataclass, replace

import torch
import tyro

from benchmarks import steps
from oscillab.data.batches import to_pixels
from oscillab.quant.kernel import kernel_off

VARIANTS = ("float", "LSQ", "LSQ, torch's operations")


@dataclass(frozen=True)
class Options:
    """What is measured."""

    model: str = "yolov5n"
    bits: int = 4
    size: int = 320
    batch_size: int = 16


def kept_bytes(model, images):
    """Return what `model(images)` keeps for its backward pass, without parameters and buffers."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model(images)
    del outputs
    return sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in own)


def measured(options, name):
    """(kept bytes, peak bytes above the start) of one variant; called in a process of its own."""
    about = replace(
        steps.Options(), model=options.model, bits=options.bits, size=options.size, batch_size=options.batch_size
    )
    model, quantized, batches = steps.start(about, count=2)
    chosen = model if name == "float" else quantized
    run = steps.Run(chosen, batches)
    step = steps.by_torch(run) if "torch" in name else run.step
    before = peak()
    for number in range(3):
        step(number)
    above = peak() - before
    images = to_pixels(batches[0].images)
    if "torch" in name:
        with kernel_off():
            return kept_bytes(chosen, images), above
    return kept_bytes(chosen, images), above


def peak():
    """Return the most resident memory that this process has held, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(options):
    """Print the table."""
    print(f"{options.model} W{options.bits}A{options.bits}, batch {options.batch_size}, {options.size} pixels")
    first = None
    for name in VARIANTS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            kept, above = pool.apply(measured, (options, name))
        first = first or (kept, above)
        print(
            f"{name:24s} kept {kept / 1e6:7.1f} MB (ratio {kept / first[0]:.3f})"
            f"   peak of three steps {above / 1e6:7.1f} MB (ratio {above / first[1]:.3f})"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
