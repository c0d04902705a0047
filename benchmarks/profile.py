"""Which three things does a recorded LSQ step spend most of its time on, beyond what the float step does?

    python -m benchmarks.profile

Every operation's own time, the tenth of steps in which it was least disturbed, LSQ with the recorder less float.
"""

from dataclasses import dataclass

import numpy as np
import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from benchmarks import steps
from oscillab.provenance import hardware


@dataclass(frozen=True)
class Options(steps.Options):
    """What is measured."""

    rounds: int = 11
    top: int = 3


def own_times(run, number):
    """Milliseconds that each operation of a step took by itself, by name."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run.step(number)
    return {event.key: event.self_cpu_time_total / 1000 for event in profiled.key_averages()}


def least(times):
    """Return the lower decile of each operation's milliseconds."""
    names = set().union(*times)
    return {name: float(np.quantile([one.get(name, 0.0) for one in times], 0.1)) for name in names}


def main(options):
    """Print the largest costs."""
    model, quantized, batches = steps.start(options)
    runs = {"float": steps.Run(model, batches), "LSQ": steps.Run(quantized, batches, recorded=True)}
    times = {name: [] for name in runs}
    for number in range(options.warmup + options.rounds):
        for name, run in runs.items():
            times[name].append(own_times(run, number))
    before, after = (least(times[name][options.warmup :]) for name in runs)
    total, more = sum(before.values()), {name: after[name] - before.get(name, 0.0) for name in after}
    print(f"{options.model}, batch {options.batch_size}, {options.size} pixels, n {options.rounds}, {hardware()}")
    print(f"float step {total:.1f} ms, recorded LSQ step {sum(after.values()):.1f} ms; the largest additions:")
    for name in sorted(more, key=more.get, reverse=True)[: options.top]:
        print(f"  {more[name]:6.2f} ms  {more[name] / total:5.1%} of a float step  {name}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Options))
