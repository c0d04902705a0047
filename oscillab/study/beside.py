"""How do our numbers lie beside the paper's?

data/paper/*.csv holds every number of 2311.05109 with its table and cell. What is compared is mAP itself, which only the same
data set and training make equal, and two things that may carry over to others: the gain on LSQ, and the share of FP32's
mAP that is kept.
"""

from pathlib import Path

import pandas as pd

from oscillab.io import shipped

from .figures.ladder import panels

FOLDER = shipped("paper")
FIRST = (
    "main",
    "baselines",
    "segmentation",
    "per_channel",
    "qc_parts",
    "soft_rounding",
)  # of two equal cells the first
KEY = ["network", "metric", "bits", "ends_bits", "method"]


def paper(folder=FOLDER):
    """The paper's cells, one row per network, metric ("box" or "mask"), bit width and method; mAP in percent.

    A method's first cell counts where tables repeat it (they differ by 0.1 here and there). Empty without the files.
    """
    files = [Path(folder) / f"{name}.csv" for name in FIRST]
    tables = [pd.read_csv(path) for path in files if path.is_file()]
    if not tables:
        return pd.DataFrame(columns=["table", "row", "column", *KEY, "map_percent"])
    return pd.concat(tables).drop_duplicates(KEY).reset_index(drop=True)


def beside(table, *, cells=None):
    """A row for each method of ours that the paper has as well, at the same network and bit width.

    Columns: `network`, `metric`, `width`, `method`, `seeds`; `ours`, `ours_spread` (mean and standard deviation over seeds),
    `paper`, `points_apart`, and the gains on LSQ at that width, `our_gain` and `paper_gain`: all in points of mAP, 0..100;
    `our_kept` and `paper_kept`, the share of FP32's mAP, 0..1. None where LSQ or FP32 is not known.
    """
    cells = paper() if cells is None else cells
    rows = []
    for group in panels(table):
        of_network = table[(table["network"] == group.network) & (table["task"] == group.task)]
        for metric, score in (("box", "map"), ("mask", "mask_map")):
            ours = 100 * group.rows(table).pivot_table(index="seed", columns="method", values=score)
            same = cells[(cells.network == group.network) & (cells.metric == metric)]
            floats = 100 * of_network.loc[of_network["method"] == "fp32", score].mean(), percent(same, "fp32")
            same = same[(same.bits == group.bits) & (same.ends_bits == group.ends_bits)]
            rows += [
                {"network": group.network, "metric": metric, "width": group.width}
                | compared(method, ours, same, floats)
                for method in same["method"]
                if method in ours
            ]
    return pd.DataFrame(rows)


def percent(cells, method):
    """The paper's mAP of a method among `cells`, in percent; None where it has none."""
    found = cells.loc[cells["method"] == method, "map_percent"]
    return None if found.empty else found.iloc[0]


def compared(method, ours, cells, floats):
    """One method's numbers, as a row; `ours`: seed by method in points, `cells`: the paper's, `floats`: FP32's of both."""
    mean, theirs = ours[method].mean(), percent(cells, method)
    base, their_base = ours.get("lsq"), percent(cells, "lsq")
    return {
        "method": method,
        "seeds": int(ours[method].count()),
        "ours": mean,
        "ours_spread": ours[method].std(),
        "paper": theirs,
        "points_apart": mean - theirs,
        "our_gain": None if base is None else (ours[method] - base).mean(),
        "paper_gain": None if their_base is None else theirs - their_base,
        "our_kept": None if pd.isna(floats[0]) else mean / floats[0],
        "paper_kept": None if floats[1] is None else theirs / floats[1],
    }
