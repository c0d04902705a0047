"""The paper's numbers as files, and ours beside them."""

import pandas as pd
import pytest

from oscillab.study.beside import beside, paper


@pytest.mark.parametrize(
    "network, metric, bits, ends_bits, method, percent",
    [
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
    ],
)
def test_cells_of_the_paper(network, metric, bits, ends_bits, method, percent):
    """Oracle: cells read off the tables of 2311.05109."""
    cells = paper().set_index(["network", "metric", "bits", "ends_bits", "method"])
    assert cells.loc[(network, metric, bits, ends_bits, method), "map_percent"] == percent


def test_every_cell_names_its_place_and_is_a_percentage():
    """Oracle: the issue of a study: table and cell named; mAP between 10 and 60 in all of the paper."""
    cells = paper()
    assert cells[["table", "row", "column"]].notna().all(axis=None) and cells.map_percent.between(10, 60).all()
    assert len(cells) > 100


def test_ours_beside_the_paper(table):
    """Oracle: by hand. Ours at 4 bit: LSQ 30 and 31, EMA 40 and 41 points; the paper's yolov5n: 20.6 and 22.1."""
    rows = beside(table).set_index(["width", "method"])
    ema = rows.loc[("4", "ema")]
    assert ema["seeds"] == 2 and ema["ours"] == pytest.approx(40.5) and ema["paper"] == 22.1
    assert ema["ours_spread"] == pytest.approx(0.5**0.5)
    assert ema["points_apart"] == pytest.approx(18.4)
    assert ema["our_gain"] == pytest.approx(10) and ema["paper_gain"] == pytest.approx(1.5)
    assert ema["our_kept"] == pytest.approx(40.5 / 60) and ema["paper_kept"] == pytest.approx(22.1 / 28.0)


def test_what_is_not_known_is_left_open(table):
    """Oracle: without FP32 and LSQ of ours, neither the share that is kept nor the gain; the paper's stand."""
    ema = beside(table[~table.method.isin(["fp32", "lsq"])]).set_index(["width", "method"]).loc[("4", "ema")]
    assert pd.isna(ema["our_kept"]) and pd.isna(ema["our_gain"])
    assert ema["paper_kept"] == pytest.approx(22.1 / 28.0) and ema["paper_gain"] == pytest.approx(1.5)


def test_without_the_papers_files(table, tmp_path):
    """Oracle: an installed package has no data folder: no cells, no rows, no error."""
    assert paper(tmp_path).empty and beside(table, cells=paper(tmp_path)).empty
    assert isinstance(beside(table, cells=paper(tmp_path)), pd.DataFrame)
