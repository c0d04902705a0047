"""How does a recorded result get into the README, so that no number there is typed by hand?

The README holds marked places, `<!-- results: data/results/quick -->` to `<!-- end -->`; `fill` writes the table of each
folder between its marks. `oscillab report --readme README.md` calls it, and a test holds the two together.
"""

import re
from pathlib import Path

import pandas as pd

from .style import label_of
from .text import HEADINGS, cell, width

SHOWN = ("map", "map50", "oscillating_share", "flip_rate")
PLACE = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text, root):
    """The text with every marked place filled from the results folder, below `root`, that it names.

    Raises ValueError when a named folder holds no table.csv.
    """

    def table_of(match):
        path = Path(root) / match[2] / "table.csv"
        if not path.is_file():
            raise ValueError(f"the text names {match[2]}, which holds no table.csv below {root}")
        return f"{match[1]}{markdown(pd.read_csv(path))}\n{match[3]}"

    return PLACE.sub(table_of, text)


def markdown(table):
    """A study's table in Markdown, means over seeds with the spread behind where there are several.

    >>> print(markdown(pd.DataFrame([{"network": "yolov5n", "bits": 4, "method": "lsq", "seed": 0, "map": 0.5593,
    ...     "map50": 0.8151, "ends_bits": 8, "oscillating_share": 0.379, "flip_rate": 0.00777}])))
    | network | bits | method | mAP | AP50 | oscillating | flips/step |
    | --- | ---: | --- | ---: | ---: | ---: | ---: |
    | yolov5n | 4 | LSQ | 0.559 | 0.815 | 37.9 % | 0.777 % |
    """
    heads = ["network", "bits", "method", *(HEADINGS[name] for name in SHOWN)]
    rules = ["---", "---:", "---", *["---:"] * len(SHOWN)]
    rows = [heads, rules]
    for (network, *bits, method), group in table.groupby(["network", "bits", "ends_bits", "method"], sort=False):
        rows.append([network, width(*bits), label_of(method), *(spread(name, group[name]) for name in SHOWN)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def spread(name, values):
    """The mean as a table's cell, with the standard deviation behind where there are several values."""
    if len(values) == 1 or values.isna().any():
        return cell(name, values.iloc[0])
    return f"{cell(name, values.mean())} ± {cell(name, values.std())}"
