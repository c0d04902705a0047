"""Which figures belong into the report of a study?"""

import pandas as pd

from oscillab.plot import plots
from oscillab.recording import tables

from .gains import draw_gains
from .ladder import RUNGS, panels


def run_name(network, bits, ends_bits, arm, seed):
    """The name of the folder that a study gives one run.

    >>> run_name("yolov5n", 4, 8, "lsq", 0), run_name("yolov5n", 4, 4, "dampening", 1)
    ('yolov5n-4bit-seed0', 'yolov5n-4bit-ends4-dampening-seed1')
    """
    words = [f"{network}-{bits}bit", f"ends{ends_bits}" * (ends_bits != 8), arm * (arm != "lsq"), f"seed{seed}"]
    return "-".join(word for word in words if word)


def figures(table, runs):
    """Name -> (Figure, caption) of every figure of a study.

    `table`: a study's rows. `runs`: run name -> method -> Recording. Of the seeds of one network and bit width, the
    first is drawn in detail.
    """
    album = {
        "ladder": (
            plots.draw_ladder(table),
            "mAP by method, COCO's measure, on the pictures of this study. A point is a seed, a bar the mean.",
        )
    }
    for group in panels(table):
        rows = group.rows(table)
        if set(rows["method"]) - set(RUNGS):
            name = f"{group.network}-{group.bits}bit" + f"-ends{group.ends_bits}" * (group.ends_bits != 8) + "-gains"
            album[name] = (
                draw_gains(rows),
                "Differences of mAP to LSQ or to EMA of the same seed: dots, their mean a bar.",
            )
        name = run_name(group.network, group.bits, group.ends_bits, "lsq", rows["seed"].min())
        if name in runs:
            floats = table[(table["network"] == group.network) & (table["method"] == "fp32")]
            drawn = of_run(pd.concat([floats, rows]), runs[name])
            album |= {f"{name}-{kind}": (figure, f"{name}. {caption}") for kind, (figure, caption) in drawn.items()}
    return album


def of_run(table, recordings):
    """Kind -> (Figure, caption) of the figures of one run, with one layer in detail: the one that oscillates most."""
    live, average = recordings["lsq"], recordings["ema"]
    layer = busiest(live)
    return {
        "before-after": (
            plots.draw_before_after(table, live, average),
            "Left: share of weights that flip in a step, live (LSQ) and averaged (EMA). Right: mAP.",
        ),
        "layers": (plots.draw_layers(recordings), "Oscillating weights of each convolution, in the network's order."),
        "edges": (
            plots.draw_boundary_distance(live),
            "Where latent weights lie in their bins. The paper's Fig. 2a shows a layer whose weights peak at the edges after 100 "
            "epochs; the title says whether these do.",
        ),
        "histogram": (
            plots.draw_boundary_distance(live, layer),
            "The latent weights of the layer that oscillates most.",
        ),
        "trajectories": (
            plots.draw_trajectories(recordings, layer),
            "The sampled weights of that layer that flip most: the latent weight in step sizes over the last steps. Curves that "
            "move together do so because the step size moves, by which all are divided.",
        ),
        "step-sizes": (plots.draw_step_sizes(recordings, layer), "The weight step size of that layer."),
        **input_range(live, layer),
        "map": (
            plots.draw_layer_map(live, layer),
            "How often each weight of that layer flips: a row is an output channel. Where the grain is even, none stands out.",
        ),
    }


def busiest(recording):
    """The name of the low-bit layer of the largest share of oscillating weights."""
    names = tables.chosen_layers(recording, tables.LOW_BITS)
    return max(names, key=lambda name: tables.oscillating(recording, name).mean())


def input_range(recording, layer):
    """The figure of the layer's input range, or nothing where none was observed."""
    try:
        figure = plots.draw_ranges(recording, layer)
    except ValueError:
        return {}
    return {"ranges": (figure, "The range that the layer's input quantizer clips to, against the inputs that came in.")}
