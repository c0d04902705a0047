"""What is each way to train worth, without QC behind it and with it, at every width of every network?"""

from oscillab.plot.multiples import outer_sides, panel_grid, places_of
from oscillab.plot.style import INK, METHODS, QUIET, method_style, set_headline, set_labels

from .ladder import panels

TRAINED = ("ptq", "lsq", "dampening", "freezing", "ema")  # the rows, each with QC behind where the table has it


def draw_remedies(table, *, score="map"):
    """A figure of a score by way of training, a panel per network and bit width, with what QC adds as a second mark.

    `table`: a study's rows; `score`: "map", "map50" or "mask_map". Small marks are seeds, large ones their mean, open as
    trained and filled with QC; FP32 is a grey line. Raises ValueError where no row has the score.
    """
    table = table[table[score].notna()]
    places = places_of(panels(table))
    figure, found = panel_grid(places, panel=(3.0 if len(places) > 1 else 5.0, 2.1), margin=0.7, sharex=True)
    rows = [method for method in TRAINED if method in set(table["method"])]
    for place, group in places.items():
        axes, at_bits = found[place], group.rows(table)
        for height, method in enumerate(rows):
            add_pair(axes, at_bits, method, height, score)
        floats = table[(table["network"] == group.network) & (table["method"] == "fp32")][score]
        if len(floats):
            axes.axvline(floats.mean(), color=QUIET, linewidth=0.9)
            axes.text(floats.mean(), -0.55, "FP32 ", ha="right", va="center", fontsize=8, color=QUIET)
        finish(axes, rows, f"{group.network}, {group.width} bit", named(score) * outer_sides(axes, found)[1])
    return set_headline(
        figure, f"Open: as trained; filled: with QC behind. {sentence_of(table, places.values(), score)}"
    )


def add_pair(axes, rows, method, height, score):
    """The same axes with a method's seeds and mean at one height, as trained (open) and with QC (filled)."""
    trained, corrected = (rows.loc[rows["method"] == name, score] for name in (method, f"{method}+qc"))
    if len(trained) and len(corrected):
        axes.plot([trained.mean(), corrected.mean()], [height] * 2, color="#cccccc", linewidth=4, zorder=1)
    for values, name, open_mark in ((trained, method, True), (corrected, f"{method}+qc", False)):
        style = METHODS.get(name, method_style(method))
        face = {"markerfacecolor": "white"} if open_mark and style.marker != "x" else {}
        if len(values):
            axes.plot(values, [height] * len(values), **style.points(markersize=3, alpha=0.6, clip_on=False))
            axes.plot([values.mean()], [height], **style.points(markersize=7, clip_on=False) | face)


def finish(axes, rows, title, x):
    """The same axes with methods named from the top down."""
    axes.set_yticks(range(len(rows)), [method_style(method).label for method in rows])
    axes.set_ylim(len(rows) - 0.5, -0.9)
    axes.set_xlim(left=0)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    axes.tick_params(axis="y", colors=INK)
    return set_labels(axes, x=x, y="", title=title)


def named(score):
    """The name of a score at an axis."""
    return {"map": "mAP (0.50:0.95)", "map50": "AP50", "mask_map": "mask mAP (0.50:0.95)"}[score]


def sentence_of(table, groups, score):
    """In how many panels EMA lies above LSQ in the mean, and EMA+QC above EMA; nothing where neither can be said."""
    means = [group.rows(table).groupby("method")[score].mean() for group in groups]
    parts = []
    for high, low in (("ema", "lsq"), ("ema+qc", "ema")):
        gains = [one[high] - one[low] for one in means if high in one and low in one]
        if gains:
            count = f"{sum(gain > 0 for gain in gains)} of {len(gains)} panel{'s' if len(gains) > 1 else ''}"
            parts.append(f"{method_style(high).label} above {method_style(low).label} in {count}")
    return ", ".join(parts)
