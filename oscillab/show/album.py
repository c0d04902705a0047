"""Which figures belong into the report of a study?"""

from oscillab.record import oscillation

from . import plots
from .ladder import panels


def figures(table, runs):
    """Name -> (Figure, caption) of every figure of a study.

    `table`: a study's rows. `runs`: run name (<network>-<bits>bit-seed<k>) -> method -> Recording. Of the seeds of one
    network and bit width, the first is drawn in detail.
    """
    album = {"ladder": (plots.draw_ladder(table), "COCO mAP by method. A point is a seed, a bar the mean.")}
    for network, task, bits in panels(table):
        name = next((run for run in sorted(runs) if run.startswith(f"{network}-{bits}bit-")), None)
        if name:
            rows = table[(table["network"] == network) & (table["task"] == task)]
            rows = rows[(rows["bits"] == bits) | (rows["method"] == "fp32")]
            drawn = of_run(rows, runs[name])
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
            "Where latent weights lie in their bins; the paper's Fig. 2a shows a layer whose weights peak at the edges.",
        ),
        "histogram": (
            plots.draw_boundary_distance(live, layer),
            "The latent weights of the layer that oscillates most.",
        ),
        "trajectories": (
            plots.draw_trajectories(recordings, layer),
            "The sampled weights of that layer that flip most: the latent weight in step sizes over the last steps.",
        ),
        "step-sizes": (plots.draw_step_sizes(recordings, layer), "The weight step size of that layer."),
        **input_range(live, layer),
        "map": (plots.draw_layer_map(live, layer), "How often each weight of that layer flips."),
    }


def busiest(recording):
    """The name of the low-bit layer of the largest share of oscillating weights."""
    names = oscillation.chosen_layers(recording, oscillation.LOW_BITS)
    return max(names, key=lambda name: oscillation.oscillating(recording, name).mean())


def input_range(recording, layer):
    """The figure of the layer's input range, or nothing where none was observed."""
    try:
        figure = plots.draw_ranges(recording, layer)
    except ValueError:
        return {}
    return {"ranges": (figure, "The range that the layer's input quantizer clips to, against the inputs that came in.")}
