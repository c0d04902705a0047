"""Text for the terminal, against lines written out by hand."""

import pandas as pd

from oscillab.study.text import cell, lines, table_text


def test_lines_are_aligned():
    """Oracle: the expected text."""
    assert lines({"map": 0.274812, "images": 188, "checkpoint": "a.pt", "note": None}) == (
        "map         0.2748\nimages      188\ncheckpoint  a.pt\nnote        -"
    )
    assert lines({}) == ""


def test_a_study_table_reads_well():
    """Oracle: the expected text: mAP with three decimals, shares in percent, what is absent as a dash."""
    table = pd.DataFrame(
        {
            "bits": [32, 4],
            "method": ["fp32", "ema+qc"],
            "map": [0.61234, 0.4],
            "oscillating_share": [float("nan"), 0.0123],
            "flip_rate": [float("nan"), 0.00042],
            "seconds": [3.2, 101.7],
        }
    )
    assert table_text(table).splitlines() == [
        "bits  method    mAP  oscillating  flips/step  seconds",
        "-----------------------------------------------------",
        "  32  fp32    0.612            -           -        3",
        "   4  ema+qc  0.400        1.2 %     0.042 %      102",
    ]


def test_an_empty_table_says_so():
    """Oracle: the documented text."""
    assert table_text(pd.DataFrame(columns=["map"])) == "(no rows)"


def test_unknown_columns_pass_through():
    """Oracle: a float without a known name keeps its digits."""
    assert cell("gain", 0.03125) == "0.03125" and cell("network", "yolov5n") == "yolov5n"
