"""Format results and tables as text for a terminal."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

FORMATS = {  # of the columns whose numbers are not written as they are
    **dict.fromkeys(("map", "map50", "map75", "mask_map", "spread", "p"), "{:.3f}"),
    **dict.fromkeys(("ours", "ours_spread", "paper", "points_apart"), "{:.1f}"),
    **dict.fromkeys(
        ("oscillating_share", "clipped_share", "our_share", "paper_share", "near_edge_share", "edge_flip_share"),
        "{:.1%}",
    ),
    "our_gain": "{:+.1f}",
    "paper_gain": "{:+.1f}",
    "difference": "{:+.3f}",
    "flip_rate": "{:.3%}",
    "step_size_spread": "{:.2%}",
    "seconds": "{:.0f}",
}
HEADINGS = {
    "map": "mAP",
    "map50": "AP50",
    "map75": "AP75",
    "mask_map": "mask mAP",
    "ends_bits": "ends",
    "schedule": "rate",
    "near_edge_share": "near an edge",
    "edge_flip_share": "flips by the edge",
    "step_size_spread": "step sizes' spread",
    "ours_spread": "± over seeds",
    "points_apart": "ours - paper",
    "our_gain": "our gain on LSQ",
    "paper_gain": "paper's gain on LSQ",
    "our_share": "kept of FP32",
    "paper_share": "paper's kept",
    "oscillating_share": "oscillating",
    "flip_rate": "flips/step",
}


def lines(mapping: Mapping[str, Any]) -> str:
    """Return aligned "name  value" lines, one for each entry of `mapping`."""
    width = max((len(name) for name in mapping), default=0)
    return "\n".join(f"{name:<{width}}  {_plain(value)}" for name, value in mapping.items())


def _plain(value: Any) -> str:
    if value is None or value != value:  # a nan differs from itself
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def width(bits: float, ends_bits: float) -> str:
    """Return the bits of a network as the paper writes them: with a star where its first and last layers have no more.

    >>> width(4, 8), width(4, 4), width(32, 32)
    ('4', '4*', '32')
    """
    return f"{bits:g}{'*' if bits == ends_bits and bits < 8 else ''}"


def cell(name: str, value: Any) -> str:
    """Return a table's cell as text: mAP with three decimals, shares in percent, seconds whole, what is absent as "-"."""
    if value is None or value != value:
        return "-"
    if name in FORMATS:
        return FORMATS[name].format(value).replace("%", " %")
    return f"{value:g}" if isinstance(value, float) else str(value)


def table_text(table: pd.DataFrame) -> str:
    """Return a data frame as a neat text table: words to the left, numbers to the right, a line below the headings."""
    if table.empty:
        return "(no rows)"
    columns = []
    for name in table.columns:
        cells = [HEADINGS.get(name, str(name)), *(cell(name, value) for value in table[name])]
        width = max(map(len, cells))
        words = not all(text == "-" or text[0].isdigit() or text[0] in "+-" for text in cells[1:])
        columns.append([f"{text:<{width}}" if words else f"{text:>{width}}" for text in cells])
    rows = ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
    return "\n".join([rows[0], "-" * max(map(len, rows)), *rows[1:]])
