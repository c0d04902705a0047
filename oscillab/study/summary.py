"""What is each method's mean over seeds, and how far do the seeds lie apart?"""

import pandas as pd

from oscillab.plot.style import label_of
from oscillab.plot.text import HEADINGS, cell, width

SHOWN = ("map", "map50", "mask_map", "oscillating_share", "flip_rate")


def summary(table):
    """A study's table as cells of text, a row per network, bit width and method: means, with the spread behind them.

    Columns: `network`, `bits`, `method` and the headings of `SHOWN`, masks only where the table has any. Rows stand in
    the order in which the table begins them.

    >>> rows = [{"network": "yolov5n", "bits": 4, "ends_bits": 8, "method": "ema", "map": score, "map50": 0.8,
    ...     "oscillating_share": 0.05, "flip_rate": 0.001} for score in (0.66, 0.68)]
    >>> list(summary(pd.DataFrame(rows)).loc[0])
    ['yolov5n', '4', 'EMA', '0.670 ± 0.014', '0.800 ± 0.000', '5.0 % ± 0.0 %', '0.100 % ± 0.000 %']
    """
    scores = [name for name in SHOWN if name != "mask_map" or table.get(name, pd.Series(dtype=float)).notna().any()]
    rows = []
    for (network, *bits, method), group in table.groupby(["network", "bits", "ends_bits", "method"], sort=False):
        about = {"network": network, "bits": width(*bits), "method": label_of(method)}
        rows.append(about | {HEADINGS[name]: spread(name, group[name]) for name in scores})
    return pd.DataFrame(rows)


def spread(name, values):
    """The mean as a table's cell, with the standard deviation behind where there are several values."""
    if len(values) < 2 or values.isna().any():
        return cell(name, values.iloc[0] if len(values) else None)
    return f"{cell(name, values.mean())} ± {cell(name, values.std())}"
