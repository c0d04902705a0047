"""Figures of gains, shares of FP32's mAP, layers, and recorded detections: what dots, bars and rows say."""

import json
from types import SimpleNamespace as Row

import numpy as np
import pandas as pd
import pytest

from oscillab.data.scenes import Scenes
from oscillab.provenance import SHIPPED
from oscillab.study.figures.gains import draw_claims, draw_gains, draw_share_of_fp32
from oscillab.study.figures.layers import draw_bytes, draw_factors, draw_kinds, draw_layer_errors
from oscillab.study.figures.regimes import draw_regimes
from oscillab.study.fixtures import box_rows, found_rows
from oscillab.study.table import compare_with_paper
from oscillab.yolo import checkpoint

PAIRS = (("ema", "lsq"), ("freezing", "lsq"), ("ema+qc", "ema"))


def dots(axes):
    """Label of each row -> x of its dots, rounded to a tenth of a point."""
    labels = [text.get_text() for text in axes.get_yticklabels()]
    points = [point for one in axes.collections for point in one.get_offsets()]
    return {label: sorted(round(float(x), 1) for x, y in points if y == row) for row, label in enumerate(labels)}


def test_gains_and_claims_in_points(make_table, table):
    """Oracle: EMA 10, QC 15 and 10; of 10 and 20, 15 ± 10 / sqrt(2), p = 1 - 2 / pi * arctan(3); edges as text."""
    at_three_bits = make_table(bits=(3,))
    figure = draw_gains(at_three_bits)
    averages, after_lsq, after_ema = figure.axes
    assert dots(averages) == {"EMA": [10, 10]} and dots(after_lsq) == {"LSQ+QC": [15, 15]}
    assert dots(after_ema) == {"EMA+QC": [10, 10]} and after_ema.patches[0].get_width() == pytest.approx(10)
    assert "2 seeds" in figure.get_suptitle() and "LSQ+QC's, +15.0 points" in figure.get_suptitle()
    moved = at_three_bits.copy()
    moved.loc[(moved.method == "ema") & (moved.seed == 1), "map"] += 0.1
    interval = draw_gains(moved).axes[0].lines[0].get_xdata()
    assert list(interval) == pytest.approx([15 - 10 / 2**0.5, 15 + 10 / 2**0.5])
    moved = at_three_bits.copy()
    moved.loc[moved.method == "ema", "map"] = 0.0
    axes = draw_gains(moved).axes[0]
    assert axes.get_xlim()[0] == -20
    assert [text.get_text() for text in axes.texts] == [" ‹ -30.5 in the mean"]
    figure = draw_claims(table, pairs=PAIRS)
    assert dots(figure.axes[0]) == {"EMA − LSQ": [10, 10], "EMA+QC − EMA": [10, 10]}
    title = " ".join(figure.get_suptitle().split())
    assert title == "4 differences: every seed gains in 4, every seed loses in 0", "no word about a rest that is none"
    axes = draw_claims(table, pairs=PAIRS[:1], most=5).axes[0]
    assert axes.get_xlim() == (-5, 5) and "10.0 in the mean" in axes.texts[0].get_text()
    table.loc[(table.method == "ema") & (table.seed == 1) & (table.bits == 4), "map"] += 0.1
    texts = [text.get_text() for text in draw_claims(table, pairs=PAIRS[:1]).axes[0].texts]
    assert texts == ["p 0.205"]


@pytest.mark.parametrize("draw, words", [
    (draw_gains, "one network at one bit width, got 2"),
    (lambda table: draw_gains(table[table.method.eq("lsq") & table.bits.eq(3)]), "no method beside LSQ or EMA"),
    (lambda table: draw_claims(table, pairs=PAIRS[1:2]), "no two methods of the pairs"),
    (lambda table: draw_share_of_fp32(compare_with_paper(table[table.method != "fp32"])), "nothing to compare with"),
    (lambda table: draw_regimes(pd.concat([table, table.assign(network="b")])), "of one network: select the rows"),
])  # fmt: skip
def test_tables_that_cannot_be_drawn_are_refused(table, draw, words):
    """Oracle: the sentences of the docstrings."""
    with pytest.raises(ValueError, match=words):
        draw(table)


def test_gains_by_length_and_schedule(make_table):
    """Oracle: by hand: EMA +10, LSQ+QC +15 points at every length and schedule; shares 40.5 of 60, 22.1 of 28."""
    first = make_table(bits=(3,))
    trained = first[first["steps"] > 0]
    longer = trained.assign(steps=2000, map=trained["map"] + 0.1 * (trained["method"] == "ema"))
    table = pd.concat([first, longer, trained.assign(schedule="official")])
    ema, qc = (axes.lines for axes in draw_regimes(table).axes)
    curves = {line.get_label(): line.get_xydata().tolist() for line in (*ema,) if "rate" in line.get_label()}
    short = [500, pytest.approx(10)]
    assert curves == {"official rate": [short], "constant rate": [short, [2000, pytest.approx(20)]]}
    (line,) = (line for line in qc if line.get_label() == "constant rate")
    assert line.get_ydata().tolist() == pytest.approx([15, 15])
    axes = draw_share_of_fp32(compare_with_paper(make_table())).axes[0]
    row = [text.get_text() for text in axes.get_yticklabels()].index("EMA")
    at = {line.get_marker(): line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [row]}
    assert at["s"] == pytest.approx(100 * 40.5 / 60) and at["|"] == pytest.approx(100 * 22.1 / 28.0)


LAYERS = [Row(bits=bits, bytes=256 * bits, float_bytes=8192) for bits in (8, 4, 4)]


def test_layers_are_bars_and_points():
    """Oracle: by hand: KB of 1024 bytes, shares and medians in titles; factors moved by 0.2; a table's columns."""
    figure = draw_bytes(LAYERS, file_bytes=1, float_file_bytes=8)
    float_bars, four, eight = figure.axes[0].containers
    assert [bar.get_height() for bar in float_bars] == [8, 8, 8]
    assert [bar.get_height() for bar in four] == [1, 1] and [bar.get_height() for bar in eight] == [2]
    assert "16.7%" in figure.get_suptitle() and "12.5%" in figure.get_suptitle()
    kinds = [Row(kind="convolution", operations=2, numbers=3e6), Row(kind="shortcut", operations=1, numbers=1e6)]
    bars = draw_kinds(kinds).axes[0].patches
    assert [bar.get_width() for bar in bars] == [1, 3]
    assert bars[0].get_facecolor() != bars[1].get_facecolor()
    figure = draw_factors([0.9, 1.3], [-0.1, 0.3])
    assert "γ moved by 0.200 and β by 0.200" in figure.get_suptitle().replace("\n", " ")
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 2
    figure = draw_layer_errors({"ema": errors([1.0, 2, 9]), "ema+qc": errors([2.0, 3, 9])})
    above, below = figure.axes
    assert [line.get_ydata().tolist() for line in above.lines[:2]] == [[1, 2, 9], [2, 3, 9]]
    np.testing.assert_allclose(below.lines[0].get_ydata(), [10, 20, 30])
    assert "EMA 2.0 dB, EMA+QC 3.0 dB" in figure.get_suptitle()
    with pytest.raises(ValueError, match="ema and ema\\+qc cannot be compared"):
        draw_layer_errors({"ema": errors([1.0, 2, 3]), "ema+qc": errors([1.0, 2, 3]).iloc[:2]})
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_layer_errors({})


def errors(noise):
    return pd.DataFrame({"layer": ["a", "b", "c"], "signal_to_noise": noise, "mean_share": [0.1, 0.2, 0.3]})


def test_rows_are_the_scenes_and_what_the_detector_sees(root):
    """Oracle: the scenes' annotations; the shipped detector's confident rows on one, to 0.1 pixel and 0.01 in score."""
    shipped = json.loads((root / "data" / "detections" / "quick-3bit.json").read_text())
    scenes = Scenes(12, **shipped["scenes"])
    for number, rows in shipped["truth"].items():
        sample = scenes.sample(int(number))
        assert rows == box_rows(sample.boxes, sample.labels)
    assert shipped["names"] == list(scenes.names)
    sample = Scenes(12, split="val").sample(0)
    wanted = [row for row in shipped["methods"]["fp32"]["0"] if row[4] > 0.5]
    given = [row for row in found_rows(checkpoint.load(SHIPPED), sample.image) if row[4] > 0.5]
    assert len(wanted) >= 3
    np.testing.assert_allclose(given, wanted, atol=0.11)
