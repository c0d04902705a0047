"""Draw every figure of a study's results by its name, and those of its report."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pandas as pd

from oscillab.extras import nearest
from oscillab.plot import figures as plot
from oscillab.plot.style import InlineFigure
from oscillab.recording import tables
from oscillab.recording.recording import Recording
from oscillab.study.table import QUANTIZED, groups, run_name

from .gains import draw_claims, draw_gains, draw_share_of_fp32
from .layers import draw_bytes, draw_factors, draw_kinds, draw_layer_errors
from .map_by_method import draw_before_after, draw_map_by_method, draw_map_vs_oscillation, draw_remedies
from .regimes import draw_regimes

GAINS = "Differences of mAP to LSQ or to EMA of the same seed: dots; their mean and standard deviation: a bar."
REGIMES = "What EMA and QC gain on LSQ by the length of the run, a curve for each schedule of the learning rate: seeds and mean."
Figures = dict[str, tuple[InlineFigure, str]]
FIGURES: dict[str, Callable[..., InlineFigure]] = {
    "mAP by method": draw_map_by_method,
    "remedies": draw_remedies,
    "gains": draw_gains,
    "regimes": draw_regimes,
    "claims": draw_claims,
    "share of FP32": draw_share_of_fp32,
    "mAP and oscillation": draw_map_vs_oscillation,
    "before and after": draw_before_after,
    "layer errors": draw_layer_errors,
    "corrections": draw_factors,
    "bytes": draw_bytes,
    "operations": draw_kinds,
}


def draw(what: Any, figure: str, *arguments: Any, **options: Any) -> InlineFigure:
    """Return a figure of results by its name; nothing is shown and no global state is touched.

    `what`: the rows of a study's `table.csv` where nothing else is named; [what may be left out] stands in brackets.

    | figure | arguments | what is drawn |
    | --- | --- | --- |
    | mAP by method | | mAP of every method, a panel per network and bit width |
    | remedies | [score="map"] | a score by way of training, and what QC adds to it |
    | gains | | paired differences of one network at one bit width, by family |
    | regimes | [methods] | gain on LSQ against the length of a run, a curve per schedule, of one network |
    | claims | [pairs, most] | paired differences of pairs (method, reference), with their p |
    | share of FP32 | | what each method keeps, ours and the paper's; `what`: `oscillab.tables.compare_with_paper` |
    | mAP and oscillation | | mAP over the share of oscillating weights |
    | before and after | live, average | flips of two recordings and mAP; `what`: rows of one network and width |
    | layer errors | | error of each layer; `what`: method -> `oscillab.tables.layer_errors` |
    | corrections | shifts | what QC learned; `what`: the scales, arrays (channels,) |
    | bytes, operations | [file_bytes, float_file_bytes] | what an exported file holds; `what`: layers, kinds of its cost |

    Raises ValueError for an unknown figure and where the table lacks what the figure shows.
    """
    if figure not in FIGURES:
        raise ValueError(f"there is no figure {figure!r}; {nearest(figure, FIGURES)}")
    return FIGURES[figure](what, *arguments, **options)


def report_figures(table: pd.DataFrame, runs: Mapping[str, Mapping[str, Recording]]) -> Figures:
    """Return name -> (figure, caption) of every figure of a study.

    `table`: a study's rows. `runs`: run name -> method -> Recording. Of the seeds of one network and bit width, the
    first is drawn in detail.
    """
    caption = "mAP by method, COCO's measure, on the images of this study. A point is a seed, a bar the mean."
    found = {"map-by-method": (draw_map_by_method(table), caption)}
    every = groups(table)
    lengths = {network: {one.steps for one in every if one.network == network} for network in table["network"]}
    for network in (name for name, steps in lengths.items() if len(steps) > 1):
        with suppress(ValueError):  # nothing but LSQ was measured
            found[f"{network}-regimes"] = draw_regimes(table[table["network"] == network]), REGIMES
    for group in every:
        rows = group.rows(table)
        name = run_name(group.network, *group[2:4], group.schedule, "lsq", seed := rows["seed"].min())
        if set(rows["method"]) - set(QUANTIZED):
            length = f"{group.steps}steps-" if len(lengths[group.network]) > 1 else ""
            found[name.removesuffix(f"seed{seed}") + length + "gains"] = draw_gains(rows), GAINS
        if name in runs:
            floats = table[(table["network"] == group.network) & (table["method"] == "fp32")]
            caption = "Left: share of weights that flip in a step, live (LSQ) and averaged (EMA). Right: mAP."
            headline = draw_before_after(pd.concat([floats, rows]), runs[name]["lsq"], runs[name]["ema"]), caption
            drawn = {"before-after": headline, **run_figures(runs[name])}
            found |= {f"{name}-{kind}": (figure, f"{name}. {caption}") for kind, (figure, caption) in drawn.items()}
    return found


def run_figures(recordings: Mapping[str, Recording]) -> Figures:
    """Return kind -> (figure, caption) of the recordings of one run, with the layer of the first that oscillates most."""
    live = next(iter(recordings.values()))
    layer = busiest_layer(live)
    found: Figures = {
        "layers": (plot.draw(recordings, "layers"), "Oscillating weights of each convolution, in the network's order."),
        "edges": (
            plot.draw(live, "latent weights"),
            "Where latent weights lie in their bins. The paper's Fig. 2a shows a layer whose weights peak at the edges after 100 "
            "epochs; the title says whether these do.",
        ),
        "histogram": (
            plot.draw(live, "latent weights", layer),
            "The latent weights of the layer that oscillates most.",
        ),
        "trajectories": (
            plot.draw(recordings, "trajectories", layer),
            "The sampled weights of that layer that flip most: the latent weight in step sizes over the last steps. Curves that "
            "move together do so because the step size moves, by which all are divided.",
        ),
        "step-sizes": (plot.draw(recordings, "step size", layer), "The weight step size of that layer."),
    }
    with suppress(ValueError):  # not every recording counts them, or has layers that are large enough
        caption = (
            "Do latent weights gather at bin edges? Left: their distances at four times; right: the share near an edge."
        )
        found["crowding"] = plot.draw(live, "crowding"), caption
    with suppress(ValueError):  # not every recording has seen its inputs
        caption = "The range that the layer's input quantizer clips to, against the inputs that came in."
        found["ranges"] = plot.draw(live, "inputs", layer), caption
    caption = "How often each weight of that layer flips: a row is an output channel. Where the grain is even, none stands out."
    return found | {"map": (plot.draw(live, "layer map", layer), caption)}


def busiest_layer(recording: Recording) -> str:
    """Return the name of the low-bit layer of the largest share of oscillating weights."""
    names = tables.chosen_layers(recording, tables.LOW_BITS)
    return max(names, key=lambda name: tables.oscillating(recording, name).mean())
