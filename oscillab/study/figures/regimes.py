"""Draw what averaging and QC gain over LSQ as runs get longer, for each schedule of the learning rate."""

import pandas as pd

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
    for (i, name), (j, width) in ((a, b) for a in enumerate(shown) for b in enumerate(widths)):
        panel = axes[i, j]
        for schedule in schedules:
            gains = {
                one.steps: 100 * differences(table, one, name, "lsq")
                for one in found
                if (one.width, one.schedule) == (width, schedule)
            }
            gains = {steps: values for steps, values in gains.items() if len(values)}
            panel.plot(
                list(gains),
                [values.mean() for values in gains.values()],
                color=colors[schedule],
                marker="_",
                markersize=12,
                label=f"{schedule} rate",
            )
            for steps, values in gains.items():
                panel.plot(
                    [steps] * len(values), values, "o", color=colors[schedule], markersize=4, markerfacecolor="none"
                )
        panel.axhline(0, color=QUIET, linewidth=0.9)
        panel.set_xscale("log")
        lengths = sorted({one.steps for one in found})
        panel.set_xticks(lengths, [f"{steps:,}" for steps in lengths])
        panel.minorticks_off()
        last = i == len(shown) - 1
        set_labels(
            panel,
            x="optimizer steps" * last,
            y=f"{method(name).label}'s gain (points)" * (j == 0),
            title=f"{method(name).label}, {width} bit",
        )
    axes[0, 0].legend(frameon=False, fontsize=9)
    seeds = f"{table['seed'].nunique()} seeds at most"
    return set_headline(figure, f"{found[0].network}: gain on LSQ by length and schedule, in points of mAP; {seeds}")
