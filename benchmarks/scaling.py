"""What does quantizing cost, against the size of the pictures and against the number of weights?

    python -m benchmarks.scaling

Activations are quantized per pixel, weights once a step: the ratio of an LSQ step to a float one falls with the size of
the picture, and rises with the weights where pictures are small.
"""

from dataclasses import dataclass, replace

import tyro

from benchmarks import steps
from benchmarks.interleaved import interleave, ratios
from oscillab.provenance import hardware


@dataclass(frozen=True)
class Options:
    """What is measured: every size with the first model, every model at the first size."""

    sizes: tuple[int, ...] = (96, 160, 320)
    models: tuple[str, ...] = ("yolov5n", "yolov5s")
    batch_size: int = 8
    rounds: int = 11
    threads: int = 1
    device: str = "cpu"


def line(options, model, size):
    """Print the ratio of an LSQ step to the float step of one model at one size."""
    about = replace(
        steps.Options(),
        model=model,
        size=size,
        batch_size=options.batch_size,
        threads=options.threads,
        device=options.device,
    )
    network, quantized, batches = steps.start(about)
    weights = sum(p.numel() for p in network.parameters())
    runs = {
        "float": steps.Run(network, batches).step,
        "LSQ": steps.Run(quantized, batches).step,
    }
    seconds = interleave(runs, options.rounds, device=options.device)
    low, median, high = ratios(seconds)["LSQ"]
    print(
        f"{model:10s} {weights / 1e6:6.2f} M weights, {size:4d} pixels: ratio {median:.3f}  ({low:.3f} .. {high:.3f})"
    )


def main(options):
    """Print the table."""
    print(f"batch {options.batch_size}, n {options.rounds}, {hardware(options.device)}")
    for size in options.sizes:
        line(options, options.models[0], size)
    for model in options.models[1:]:
        line(options, model, options.sizes[0])


if __name__ == "__main__":
    main(tyro.cli(Options))
