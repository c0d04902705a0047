"""Draw convolutions one by one: the bytes that a file saves, the error against the float network, and what QC learned."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from oscillab.methods import METHODS, method
from oscillab.plot.style import INK, QUIET, InlineFigure, new_figure, set_headline, set_labels

FLOAT, WHOLE, ENDS = METHODS["fp32"].color, METHODS["lsq"].color, METHODS["ema"].color
KILO, MEGA = 1024, 1e6


def draw_bytes(layers: Iterable[Any], *, file_bytes: int = 0, float_file_bytes: int = 0) -> InlineFigure:
    """Draw the bytes of each convolution, in the network's order: in single precision, and in the file.

    `layers`: rows of `oscillab.export.cost` with `bits`, `bytes`, `float_bytes`. The title compares the sizes of both files,
    in bytes, where they are given.
    """
    layers = list(layers)
    figure, axes = new_figure(8.4, 3.6)
    panel, places = axes[0, 0], np.arange(len(layers))
    panel.bar(places, [layer.float_bytes / KILO for layer in layers], 0.9, color="#d9d9d9", label="FP32")
    for order, width in enumerate(sorted({layer.bits for layer in layers})):
        chosen = [i for i in places if layers[i].bits == width]
        heights = [layers[i].bytes / KILO for i in chosen]
        panel.bar(chosen, heights, 0.9, color=ENDS if order else WHOLE, label=f"{width} bits, in the file")
    panel.set_yscale("log")
    panel.set_xticks(places[::5], places[::5])
    set_labels(panel, x="convolution, from the image to the boxes", y="KB, logarithmic")
    panel.legend(frameon=False, ncols=3, fontsize=9, loc="upper left")
    panel.set_ylim(top=panel.get_ylim()[1] * 4)  # room for the legend
    saved = sum(layer.bytes for layer in layers) / sum(layer.float_bytes for layer in layers)
    whole = f", the whole file {file_bytes / float_file_bytes:.1%}" if file_bytes and float_file_bytes else ""
    return set_headline(figure, f"Weights take {saved:.1%} of their FP32 bytes{whole}")


def draw_kinds(kinds: Iterable[Any]) -> InlineFigure:
    """Draw how many numbers each kind of operation gives for one image, the convolutions apart from the rest.

    `kinds`: rows with `kind`, `operations`, `numbers`.
    """
    kinds = sorted(kinds, key=lambda kind: kind.numbers)
    figure, axes = new_figure(7.6, 0.8 + 0.42 * len(kinds))
    panel, colors = axes[0, 0], [WHOLE if kind.kind == "convolution" else FLOAT for kind in kinds]
    panel.barh([kind.kind for kind in kinds], [kind.numbers / MEGA for kind in kinds], color=colors)
    for place, kind in enumerate(kinds):
        panel.text(kind.numbers / MEGA, place, f" {kind.operations} nodes", va="center", color=INK, fontsize=8.5)
    panel.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    panel.grid(axis="y", visible=False)
    panel.spines["left"].set_color(QUIET)
    panel.margins(x=0.16)
    set_labels(panel, x="million numbers given, for one image", y="")
    return set_headline(figure, "Convolutions work on integers (blue), the rest in floats")


def draw_layer_errors(tables: Mapping[str, pd.DataFrame]) -> InlineFigure:
    """Draw each layer's signal-to-noise ratio and of the share of its error that is a constant per channel.

    `tables`: method -> data frame with the columns `layer`, `signal_to_noise` (dB), `mean_share`, all of the same layers.
    Raises ValueError where they are not. `oscillab.tables.layer_errors` makes such a table.
    """
    names = {tuple(table["layer"]) for table in tables.values()}
    if not names:
        raise ValueError("there is nothing to draw: give at least one method's table")
    if len(names) > 1:
        raise ValueError(f"{' and '.join(tables)} cannot be compared: their tables hold unlike layers")
    figure, axes = new_figure(9.2, 4.6, rows=2, sharex=True)
    for name, table in tables.items():
        dots = method(name).points(markersize=4, markerfacecolor="none", label=method(name).label)
        axes[0, 0].plot(table["signal_to_noise"], **dots)
        axes[1, 0].plot(100 * table["mean_share"], **dots)
    axes[0, 0].axhline(0, color=QUIET, linewidth=0.8, linestyle=":")
    axes[0, 0].legend(frameon=False, fontsize=9, ncols=len(tables), loc="upper right")
    set_labels(axes[0, 0], x="", y="signal to noise (dB)")
    x = "layer, in the network's order (0 dB: error as large as the signal)"
    set_labels(axes[1, 0], x=x, y="error that is\na constant (%)")
    medians = ", ".join(f"{method(m).label} {table['signal_to_noise'].median():.1f} dB" for m, table in tables.items())
    return set_headline(figure, f"Error against the float network, middle layer: {medians}")


def draw_factors(scales: np.ndarray, shifts: np.ndarray) -> InlineFigure:
    """Draw what QC learned: the scales (gamma) and the shifts (beta) of all channels, as histograms.

    `scales`, `shifts`: arrays (channels,) of all layers together.
    """
    scales, shifts = np.asarray(scales), np.asarray(shifts)
    figure, axes = new_figure(8.4, 3.0, columns=2)
    for panel, values, start, text in ((axes[0, 0], scales, 1, "scale γ"), (axes[0, 1], shifts, 0, "shift β")):
        panel.hist(values, bins=60, color=METHODS["lsq+qc"].color)
        panel.axvline(start, color=INK, linewidth=0.9, linestyle=":")
        set_labels(panel, x=f"{text} (dotted: where it started)", y="channels")
    moved = f"γ moved by {np.abs(scales - 1).mean():.3f} and β by {np.abs(shifts).mean():.3f} on average"
    return set_headline(figure, f"{len(scales)} channels: {moved}")
