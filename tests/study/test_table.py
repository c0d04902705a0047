"""A study's table: pairs by seed, the printed t test, means over seeds, the paper's numbers; as text."""

import numpy as np
import pandas as pd
import pytest

from oscillab.study.table import claims, compare_with_paper, differences, groups, paired_p, paper, summary
from oscillab.study.text import cell, lines, table_text


@pytest.mark.parametrize("count, t, p", [(2, 12.706, 0.05), (3, 4.303, 0.05), (5, 2.132, 0.10), (11, 2.228, 0.05)])
def test_p_of_students_t(count, t, p):
    """Oracle: the printed table of Student's t, two-sided, n - 1 degrees of freedom (three decimals of t)."""
    gains = np.linspace(-1, 1, count)
    gains = gains / gains.std(ddof=1) / count**-0.5  # spread / sqrt(n) is 1
    assert paired_p(gains + t) == pytest.approx(p, abs=2e-4)
    assert paired_p(-gains - t) == pytest.approx(p, abs=2e-4)


def test_differences_of_each_seed_and_claims(table):
    """Oracle: EMA 0.1 above LSQ in both seeds; no p of one or equal differences; QC set better in one, worse in one."""
    group = groups(table)[0]
    assert differences(table, group, "ema", "lsq") == pytest.approx([0.1, 0.1])
    assert len(differences(table, group, "freezing", "lsq")) == 0
    assert np.isnan(paired_p(np.array([0.1]))) and np.isnan(paired_p(np.array([0.1, 0.1])))
    table.loc[(table.method == "ema+qc") & (table.seed == 1), "map"] = 0.35
    rows = claims(table).set_index(["width", "method", "reference"])
    assert rows.loc[("4", "ema", "lsq"), "holds"] == "yes" and rows.loc[("4", "ema", "lsq"), "seeds"] == 2
    unsure = rows.loc[("4", "ema+qc", "ema")]
    assert unsure["holds"] == "unclear" and unsure["difference"] == pytest.approx((0.1 - 0.06) / 2)


def test_summaries_and_text(table):
    """Oracle: by hand: 0.30, 0.31 are 0.305 ± 0.01 / sqrt(2); masks only where some are; the expected text."""
    rows = summary(table).set_index(["bits", "method"])
    assert rows.loc[("4", "LSQ"), "mAP"] == "0.305 ± 0.007"
    assert rows.loc[("32", "FP32"), "mAP"] == "0.600" and rows.loc[("32", "FP32"), "flips/step"] == "-"
    assert len(rows) == 11
    assert "mask mAP" not in summary(table)
    masked = table.assign(mask_map=np.where(table["method"] == "ema", 0.25, np.nan))
    assert set(summary(masked).set_index("method").loc["EMA", "mask mAP"]) == {"0.250 ± 0.000"}
    assert set(summary(masked).set_index("method").loc["LSQ", "mask mAP"]) == {"-"}
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


@pytest.mark.parametrize("network, metric, bits, ends_bits, method, percent", [
    ("yolov5n", "box", 4, 8, "lsq", 20.6),
    ("yolov5n", "box", 4, 8, "dampening+qc", 23.1),
    ("yolov5n", "box", 3, 8, "ema", 16.3),
    ("yolov5x", "box", 4, 4, "ema+qc", 45.2),
    ("yolov7", "box", 32, 32, "fp32", 51.2),
    ("yolov7-tiny", "box", 3, 8, "lsq+qc", 30.2),
    ("yolov5s", "box", 4, 4, "per_channel+ema", 31.2),
    ("yolov5n", "box", 4, 8, "ema+qc_shift", 23.6),
    ("yolov5s-seg", "mask", 3, 8, "ema+qc", 25.5),
    ("yolov5n-seg", "box", 4, 4, "lsq", 17.1),
])  # fmt: skip
def test_cells_of_the_paper(network, metric, bits, ends_bits, method, percent):
    """Oracle: cells read off the tables of 2311.05109; every cell names its place and lies between 10 and 60 %."""
    cells = paper().set_index(["network", "metric", "bits", "ends_bits", "method"])
    assert cells.loc[(network, metric, bits, ends_bits, method), "map_percent"] == percent
    assert (
        cells.reset_index()[["table", "row", "column"]].notna().all(axis=None)
        and cells.map_percent.between(10, 60).all()
    )
    assert len(cells) > 100


def test_ours_and_the_papers(table, tmp_path):
    """Oracle: by hand: ours at 4 bit 30, 31 and 40, 41 points, the paper's 20.6 and 22.1; what is unknown is open."""
    rows = compare_with_paper(table).set_index(["width", "method"])
    ema = rows.loc[("4", "ema")]
    assert ema["seeds"] == 2 and ema["ours"] == pytest.approx(40.5) and ema["paper"] == 22.1
    assert ema["ours_spread"] == pytest.approx(0.5**0.5)
    assert ema["points_apart"] == pytest.approx(18.4)
    assert ema["our_gain"] == pytest.approx(10) and ema["paper_gain"] == pytest.approx(1.5)
    assert ema["our_share"] == pytest.approx(40.5 / 60) and ema["paper_share"] == pytest.approx(22.1 / 28.0)
    rows = compare_with_paper(table[~table.method.isin(["fp32", "lsq"])])
    ema = rows.set_index(["width", "method"]).loc[("4", "ema")]
    assert pd.isna(ema["our_share"]) and pd.isna(ema["our_gain"])
    assert ema["paper_share"] == pytest.approx(22.1 / 28.0) and ema["paper_gain"] == pytest.approx(1.5)
    assert paper(tmp_path).empty and compare_with_paper(table, cells=paper(tmp_path)).empty
