"""Text for the terminal, against lines written out by hand."""

import pandas as pd

from oscillab.study.text import cell, lines, table_text


def test_lines_cells_and_tables():
    """Oracle: the expected text: aligned columns, mAP to three decimals, shares in percent, dashes for nothing."""
    assert lines({"map": 0.274812, "images": 188, "checkpoint": "a.pt", "note": None}) == (
        "map         0.2748\nimages      188\ncheckpoint  a.pt\nnote        -"
    )
    assert lines({}) == ""
    rows = [(32, "fp32", 0.61234, None, None, 3.2), (4, "ema+qc", 0.4, 0.0123, 0.00042, 101.7)]
    names = ["bits", "method", "map", "oscillating_share", "flip_rate", "seconds"]
    assert table_text(pd.DataFrame(rows, columns=names)).splitlines() == [
        "bits  method    mAP  oscillating  flips/step  seconds",
        "-----------------------------------------------------",
        "  32  fp32    0.612            -           -        3",
        "   4  ema+qc  0.400        1.2 %     0.042 %      102",
    ]
    assert table_text(pd.DataFrame(columns=["map"])) == "(no rows)"
    assert cell("gain", 0.03125) == "0.03125" and cell("network", "yolov5n") == "yolov5n"
