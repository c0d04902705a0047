"""Draw what averaging and QC gain over LSQ as runs get longer, for each schedule of the learning rate."""

import itertools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from oscillab.methods import method
from oscillab.plot.style import QUIET, InlineFigure, new_figure, set_headline, set_labels
from oscillab.study.table import differences, groups

COLORS = {"official": "#d55e00", "constant": "#0173b2"}  # of the schedules that every study has
OTHER = ("#029e73", "#cc78bc", "#ca9161", "#949494")


def draw_regimes(table: pd.DataFrame, *, methods: tuple[str, ...] = ("ema", "lsq+qc")) -> InlineFigure:
    """Draw each method's gain on LSQ against the length of the run, a curve per schedule: dots are seeds, lines their mean.

    `table`: a study's rows of one network; a panel for each method and bit width. Raises ValueError where the table has
    several networks, or no method to compare.
    """
    found = [group for group in groups(table) if any(len(differences(table, group, name, "lsq")) for name in methods)]
    if len({(one.network, one.task) for one in found}) != 1:
        raise ValueError(
            f"the table must hold {' or '.join(methods)} beside lsq, of one network: select the rows first"
        )
    shown = [name for name in methods if name in set(table["method"])]
    widths = list(dict.fromkeys(group.width for group in found))
    schedules = list(dict.fromkeys(group.schedule for group in found))
    free = iter(OTHER * len(schedules))
    colors = {name: COLORS.get(name) or next(free) for name in schedules}
    figure, axes = new_figure(
        1 + 3.6 * len(widths), 0.8 + 2.5 * len(shown), rows=len(shown), columns=len(widths), sharex=True, sharey=True
    )
    for (i, name), (j, width) in itertools.product(enumerate(shown), enumerate(widths)):
        for schedule in schedules:
            alike = [one for one in found if (one.width, one.schedule) == (width, schedule)]
            gains = {one.steps: 100 * differences(table, one, name, "lsq") for one in alike}
            _add_curve(axes[i, j], gains, colors[schedule], f"{schedule} rate")
        lengths = sorted({one.steps for one in found})
        axes[i, j].set_xscale("log")
        axes[i, j].set_xticks(lengths, [f"{steps:,}" for steps in lengths])
        axes[i, j].minorticks_off()
        y, x = f"{method(name).label}'s gain (points)" * (j == 0), "optimizer steps" * (i == len(shown) - 1)
        set_labels(axes[i, j], x=x, y=y, title=f"{method(name).label}, {width} bit")
    axes[0, 0].legend(frameon=False, fontsize=9)
    seeds = f"{table['seed'].nunique()} seeds at most"
    return set_headline(figure, f"{found[0].network}: gain on LSQ by length and schedule, in points of mAP; {seeds}")


def _add_curve(axes: Axes, gains: dict[int, np.ndarray], color: str, label: str) -> None:
    """Draw seeds as dots and their means as a line."""
    gains = {steps: values for steps, values in gains.items() if len(values)}
    means = [values.mean() for values in gains.values()]
    axes.plot(list(gains), means, color=color, marker="_", markersize=12, label=label)
    for steps, values in gains.items():
        axes.plot([steps] * len(values), values, "o", color=color, markersize=4, markerfacecolor="none")
    axes.axhline(0, color=QUIET, linewidth=0.9)
