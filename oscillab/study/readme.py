"""How does a recorded result get into the README, so that no number there is typed by hand?

The README holds marked places, `<!-- results: data/results/quick -->` to `<!-- end -->`, for mAP, and `<!-- oscillation: ... -->`
for the share of weights that oscillate; `fill` writes the table of each folder between its marks. `oscillab report
--readme README.md` calls it, and a test holds the two together.
"""

import re
from pathlib import Path

import pandas as pd

from oscillab.plot.style import label_of
from oscillab.plot.text import width

from .summary import spread

ROOM = {  # the methods of each kind of table, from left to right; those that were not run have no column
    "results": (
        *("fp32", "ptq", "lsq", "dampening", "freezing", "ema"),
        *("lsq+qc", "dampening+qc", "freezing+qc", "ema+qc"),
    ),
    "oscillation": ("lsq", "dampening", "freezing", "ema"),
}
SHOWN = {"results": {"map": "", "mask_map": " masks"}, "oscillation": {"oscillating_share": ""}}
PLACE = re.compile(r"(<!-- (results|oscillation): (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text, root):
    """The text with every marked place filled from the results folder, below `root`, that it names.

    Raises ValueError when a named folder holds no table.csv.
    """

    def table_of(match):
        path = Path(root) / match[3] / "table.csv"
        if not path.is_file():
            raise ValueError(f"the text names {match[3]}, which holds no table.csv below {root}")
        return f"{match[1]}{markdown(pd.read_csv(path), match[2])}\n{match[4]}"

    return PLACE.sub(table_of, text)


def markdown(table, kind="results"):
    """A study's table in Markdown: a row for each network and width, a column for each method.

    Cells are means over seeds, with the standard deviation behind where there are several.

    >>> rows = [("fp32", 32, 32, 0, 0.81), ("lsq", 4, 8, 0, 0.5593), ("lsq", 4, 8, 1, 0.5613), ("ema+qc", 4, 8, 0, 0.678)]
    >>> table = pd.DataFrame(rows, columns=["method", "bits", "ends_bits", "seed", "map"]).assign(network="yolov5n")
    >>> print(markdown(table))
    | network | bits | FP32 | LSQ | EMA+QC |
    | --- | ---: | ---: | ---: | ---: |
    | yolov5n | 4 | 0.810 | 0.560 ± 0.001 | 0.678 |
    """
    methods = [method for method in ROOM[kind] if method in set(table.method)]
    rows = [["network", "bits", *map(label_of, methods)], ["---", "---:", *["---:"] * len(methods)]]
    for network, of_network in table.groupby("network", sort=False):
        for name, suffix in SHOWN[kind].items():
            if name in table and of_network[name].notna().any():
                rows += rows_of(f"{network}{suffix}", of_network, name, methods)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def rows_of(title, table, name, methods):
    """The rows of one network: its float result stands beside every width."""
    rows = []
    for bits, of_width in table[table.method != "fp32"].groupby(["bits", "ends_bits"], sort=False):
        both = pd.concat([table[table.method == "fp32"], of_width])
        rows.append([title, width(*bits), *(spread(name, both[name][both.method == method]) for method in methods)])
    return rows
