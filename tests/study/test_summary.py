"""Means and spreads over seeds as text."""

import numpy as np

from oscillab.study.summary import summary


def test_means_and_spreads_by_hand(table):
    """Oracle: LSQ is 0.30 and 0.31, so 0.305 with a standard deviation of 0.01 / sqrt(2); FP32 has one seed."""
    rows = summary(table).set_index(["bits", "method"])
    assert rows.loc[("4", "LSQ"), "mAP"] == "0.305 ± 0.007"
    assert rows.loc[("32", "FP32"), "mAP"] == "0.600" and rows.loc[("32", "FP32"), "flips/step"] == "-"
    assert len(rows) == 11


def test_masks_have_a_column_where_there_are_some(table):
    """Oracle: a table without masks has none; with one network's, the others' cells are dashes."""
    assert "mask mAP" not in summary(table)
    masked = table.assign(mask_map=np.where(table["method"] == "ema", 0.25, np.nan))
    assert set(summary(masked).set_index("method").loc["EMA", "mask mAP"]) == {"0.250 ± 0.000"}
    assert set(summary(masked).set_index("method").loc["LSQ", "mask mAP"]) == {"-"}
