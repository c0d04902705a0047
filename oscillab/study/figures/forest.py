"""Which claims hold, at which width of which network, and how sure is it?"""

import numpy as np

from oscillab.plot.multiples import outer_sides, panel_grid, places_of
from oscillab.plot.style import label_of, set_headline, set_labels
from oscillab.study.paired import CLAIMS, differences, paired_p

from .gains import draw_family
from .ladder import panels


def draw_claims(table, *, pairs=CLAIMS, most=np.inf):
    """A figure of the paired differences of `pairs` (method, reference), a panel per network and bit width.

    Dots are seeds, bars their mean, in points of mAP; the p of `paired_p` stands at the right. `most`: points where the
    axis ends on both sides, so that one ruin does not hide the rest; a mean beyond is written at the edge. Raises
    ValueError where the table can speak of none of the pairs.
    """
    places = places_of(panels(table))
    gains = {place: gains_of(table, group, pairs) for place, group in places.items()}
    known = [pair for pair in pairs if any(len(of[pair]) for of in gains.values())]
    if not known:
        raise ValueError("the table has no two methods of the pairs that were asked for")
    panel = 2.7 if len(places) > 1 else 5.0, 0.6 + 0.21 * len(known)
    figure, found = panel_grid(places, panel=panel, margin=1.9, sharex=True)
    for place, axes in found.items():
        group = places[place]
        rows = [(method, gains[place][method, reference]) for method, reference in known]
        draw_family(axes, f"{group.network}, {group.width} bit", rows, least=-most, most=most)
        axes.set_yticks(range(len(known)), [f"{label_of(m)} − {label_of(r)}" for m, r in known], fontsize=8.5)
        for row, pair in enumerate(known):
            add_p(axes, row, gains[place][pair])
        set_labels(axes, x="difference in mAP (points)" * outer_sides(axes, found)[1], y="")
    if most < np.inf:
        next(iter(found.values())).set_xlim(-most, most)
    return set_headline(figure, sentence_of(gains))


def gains_of(table, group, pairs):
    """Pair -> its differences by seed in points, (n,), empty where the group lacks one of the two."""
    return {(method, reference): 100 * differences(table, group, method, reference) for method, reference in pairs}


def add_p(axes, row, values):
    """The same axes with the p of one row's differences at its right end."""
    p = paired_p(values)
    if not np.isnan(p):
        text = "p < 0.001" if p < 0.001 else f"p {p:.3f}"
        axes.text(1.01, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7, color="#555555")


def sentence_of(gains):
    """One sentence: of how many differences all seeds agree that they are gains, losses, or do not agree."""
    values = [one for of in gains.values() for one in of.values() if len(one)]
    up, down = sum((one > 0).all() for one in values), sum((one < 0).all() for one in values)
    rest = ", seeds disagree in the rest" if up + down < len(values) else ""
    return f"{len(values)} differences: every seed gains in {up}, every seed loses in {down}{rest}"
