"""How are times compared on a machine that others use too?

Every variant takes one turn in each round, in an order that turns from round to round, so that a busy moment meets all
alike. What is reported of a variant is the median over the rounds of its ratio to the first variant in the same round,
and the quartiles; the seconds beside it depend on who else is there. On the CPU with one thread seconds are those that
this process computed, so that it does not count while others have the core; elsewhere they are the clock's.
"""

import time

import numpy as np
import torch


def interleave(variants, rounds, *, warmup=2, device="cpu"):
    """Seconds (rounds,) of each variant, a dictionary of functions by name that are called with the round's number."""
    names, seconds, clock = list(variants), {name: [] for name in variants}, clock_for(device)
    for number in range(-warmup, rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begin = clock()
            variants[name](number)
            if str(device).startswith("cuda"):
                torch.cuda.synchronize()
            if number >= 0:
                seconds[name].append(clock() - begin)
    return {name: np.array(taken) for name, taken in seconds.items()}


def clock_for(device="cpu"):
    """Return the clock that fits a device and torch's number of threads."""
    return time.process_time if str(device) == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def ratios(seconds, base=None):
    """Quartiles (low, median, high) of every variant's ratio to `base`, else to the first, within the rounds."""
    base = seconds[base or next(iter(seconds))]
    return {name: np.quantile(taken / base, [0.25, 0.5, 0.75]) for name, taken in seconds.items()}


def print_table(seconds, *, base=None, width=24):
    """Print the median seconds of every variant and its ratio to `base`, with the quartiles of both."""
    for name, (low, median, high) in ratios(seconds, base).items():
        first, middle, last = np.quantile(seconds[name], [0.25, 0.5, 0.75])
        times = f"{middle:8.4f} s  ({first:.4f} .. {last:.4f})"
        print(f"{name:{width}s} {times}  ratio {median:.3f}  ({low:.3f} .. {high:.3f})")
