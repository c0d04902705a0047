"""By how much does each layer miss the float network, and what did QC learn against it?

Tables are those of `oscillab.train.errors.layer_errors` as data frames; factors are plain arrays.
"""

import numpy as np

from oscillab.plot.style import INK, QUIET, method_style, new_figure, set_headline, set_labels


def draw_layer_errors(tables):
    """A figure of each layer's signal-to-noise ratio and of the share of its error that is a constant per channel.

    `tables`: method -> data frame with the columns `layer`, `signal_to_noise` (dB), `mean_share`, all of the same layers.
    Raises ValueError where they are not.
    """
    if not tables:
        raise ValueError("there is nothing to draw: give at least one method's table")
    names = [list(table["layer"]) for table in tables.values()]
    if any(other != names[0] for other in names):
        raise ValueError(f"{' and '.join(tables)} cannot be compared: their tables hold unlike layers")
    figure, axes = new_figure(9.2, 4.6, rows=2, sharex=True)
    for method, table in tables.items():
        style = method_style(method)
        dots = style.points(markersize=4, markerfacecolor="none", label=style.label)
        axes[0, 0].plot(table["signal_to_noise"], **dots)
        axes[1, 0].plot(100 * table["mean_share"], **dots)
    axes[0, 0].axhline(0, color=QUIET, linewidth=0.8, linestyle=":")
    axes[0, 0].legend(frameon=False, fontsize=9, ncols=len(tables), loc="upper right")
    set_labels(axes[0, 0], x="", y="signal to noise (dB)")
    set_labels(
        axes[1, 0],
        x="layer, in the network's order (0 dB: error as large as the signal)",
        y="error that is\na constant (%)",
    )
    medians = ", ".join(
        f"{method_style(m).label} {table['signal_to_noise'].median():.1f} dB" for m, table in tables.items()
    )
    return set_headline(figure, f"Error against the float network, middle layer: {medians}")


def draw_factors(scales, shifts):
    """A figure of what QC learned: the scales (gamma) and the shifts (beta) of all channels, as histograms.

    `scales`, `shifts`: arrays (channels,) of all layers together.
    """
    scales, shifts = np.asarray(scales), np.asarray(shifts)
    figure, axes = new_figure(8.4, 3.0, columns=2)
    for panel, values, start, text in ((axes[0, 0], scales, 1, "scale γ"), (axes[0, 1], shifts, 0, "shift β")):
        panel.hist(values, bins=60, color=method_style("lsq+qc").color)
        panel.axvline(start, color=INK, linewidth=0.9, linestyle=":")
        set_labels(panel, x=f"{text} (dotted: where it started)", y="channels")
    return set_headline(figure, f"{len(scales)} channels: γ moved by {np.abs(scales - 1).mean():.3f} and β by "
                           f"{np.abs(shifts).mean():.3f} on average")  # fmt: skip
