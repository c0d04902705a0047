"""Draw the figures of a study's report."""

from collections.abc import Mapping

import pandas as pd

from oscillab.plot.figures import draw
from oscillab.plot.style import InlineFigure
from oscillab.recording import tables
from oscillab.recording.recording import Recording
from oscillab.study.figures.gains import draw_gains
from oscillab.study.figures.map_by_method import draw_before_after, draw_map_by_method
from oscillab.study.table import QUANTIZED, groups, run_name

Figures = dict[str, tuple[InlineFigure, str]]


def report_figures(table: pd.DataFrame, runs: Mapping[str, Mapping[str, Recording]]) -> Figures:
    """Return name -> (Figure, caption) of every figure of a study.

    `table`: a study's rows. `runs`: run name -> method -> Recording. Of the seeds of one network and bit width, the
    first is drawn in detail.
    """
    caption = "mAP by method, COCO's measure, on the images of this study. A point is a seed, a bar the mean."
    found = {"map-by-method": (draw_map_by_method(table), caption)}
    for group in groups(table):
        rows = group.rows(table)
        if set(rows["method"]) - set(QUANTIZED):
            name = f"{group.network}-{group.bits}bit" + f"-ends{group.ends_bits}" * (group.ends_bits != 8) + "-gains"
            caption = (
                "Differences of mAP to LSQ or to EMA of the same seed: dots; their mean and standard deviation: a bar."
            )
            found[name] = (draw_gains(rows), caption)
        name = run_name(group.network, group.bits, group.ends_bits, "lsq", rows["seed"].min())
        if name in runs:
            floats = table[(table["network"] == group.network) & (table["method"] == "fp32")]
            caption = "Left: share of weights that flip in a step, live (LSQ) and averaged (EMA). Right: mAP."
            headline = draw_before_after(pd.concat([floats, rows]), runs[name]["lsq"], runs[name]["ema"]), caption
            drawn = {"before-after": headline, **run_figures(runs[name])}
            found |= {f"{name}-{kind}": (figure, f"{name}. {caption}") for kind, (figure, caption) in drawn.items()}
    return found


def run_figures(recordings: Mapping[str, Recording]) -> Figures:
    """Return kind -> (Figure, caption) of the recordings of one run, with the layer of the first that oscillates most."""
    live = next(iter(recordings.values()))
    layer = busiest_layer(live)
    return {
        "layers": (draw(recordings, "layers"), "Oscillating weights of each convolution, in the network's order."),
        "edges": (
            draw(live, "latent weights"),
            "Where latent weights lie in their bins. The paper's Fig. 2a shows a layer whose weights peak at the edges after 100 "
            "epochs; the title says whether these do.",
        ),
        "histogram": (
            draw(live, "latent weights", layer),
            "The latent weights of the layer that oscillates most.",
        ),
        "trajectories": (
            draw(recordings, "trajectories", layer),
            "The sampled weights of that layer that flip most: the latent weight in step sizes over the last steps. Curves that "
            "move together do so because the step size moves, by which all are divided.",
        ),
        "step-sizes": (draw(recordings, "step size", layer), "The weight step size of that layer."),
        **_input_range(live, layer),
        "map": (
            draw(live, "layer map", layer),
            "How often each weight of that layer flips: a row is an output channel. Where the grain is even, none stands out.",
        ),
    }


def busiest_layer(recording: Recording) -> str:
    """Return the name of the low-bit layer of the largest share of oscillating weights."""
    names = tables.chosen_layers(recording, tables.LOW_BITS)
    return max(names, key=lambda name: tables.oscillating(recording, name).mean())


def _input_range(recording: Recording, layer: str) -> Figures:
    """Draw the layer's input range; empty where none was observed."""
    try:
        figure = draw(recording, "inputs", layer)
    except ValueError:
        return {}
    return {"ranges": (figure, "The range that the layer's input quantizer clips to, against the inputs that came in.")}
