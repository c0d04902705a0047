"""Do the README's tables hold what a study's table holds?"""

import pandas as pd
import pytest

from oscillab.study.readme import fill, markdown

ROWS = [
    ("yolov5n-seg", 32, 32, "fp32", 0, 0.8, 0.6, None),
    ("yolov5n-seg", 3, 8, "lsq", 0, 0.4, 0.3, 0.25),
    ("yolov5n-seg", 3, 8, "lsq", 1, 0.6, 0.5, 0.35),
    ("yolov5n-seg", 4, 4, "lsq", 0, 0.5, 0.4, 0.3),
    ("yolov5n-seg", 4, 4, "freezing+qc", 0, 0.7, 0.5, 0.1),
]
COLUMNS = ["network", "bits", "ends_bits", "method", "seed", "map", "mask_map", "oscillating_share"]


def test_a_row_for_each_width_and_one_for_its_masks():
    """Oracle: by hand, 0.4 and 0.6 are 0.5 ± 0.141; a method that a width lacks is a dash, one that all lack no column."""
    assert markdown(pd.DataFrame(ROWS, columns=COLUMNS)).splitlines()[2:] == [
        "| yolov5n-seg | 3 | 0.800 | 0.500 ± 0.141 | - |",
        "| yolov5n-seg | 4* | 0.800 | 0.500 | 0.700 |",
        "| yolov5n-seg masks | 3 | 0.600 | 0.400 ± 0.141 | - |",
        "| yolov5n-seg masks | 4* | 0.600 | 0.400 | 0.500 |",
    ]


def test_shares_that_oscillate():
    """Oracle: by hand; QC leaves states alone and has no column."""
    shown = markdown(pd.DataFrame(ROWS, columns=COLUMNS), "oscillation").splitlines()
    assert shown[0] == "| network | bits | LSQ |"
    assert shown[2:] == ["| yolov5n-seg | 3 | 30.0 % ± 7.1 % |", "| yolov5n-seg | 4* | 30.0 % |"]


def test_marked_places_are_filled(tmp_path):
    """Oracle: the table between its marks, the rest as it was; an error that names a folder without a table."""
    (tmp_path / "results").mkdir()
    pd.DataFrame(ROWS, columns=COLUMNS).to_csv(tmp_path / "results" / "table.csv", index=False)
    text = "before\n<!-- oscillation: results -->\nold\n<!-- end -->\nbehind\n"
    filled = fill(text, tmp_path)
    assert filled.startswith("before\n<!-- oscillation: results -->\n| network") and "old" not in filled
    assert filled.endswith("<!-- end -->\nbehind\n") and fill(filled, tmp_path) == filled
    with pytest.raises(ValueError, match="nowhere"):
        fill(text.replace("results -->", "nowhere -->"), tmp_path)
