"""Do rows over time come back whole, across chunks and across a resume?"""

import numpy as np
import pytest
import torch

from oscillab.recording.series import CHUNK_ROWS, Series

COLUMNS = {"step": (None, torch.int64), "size": (3, torch.float32)}


def filled(first, last, series=None):
    """A series with the rows `first` to `last`, row k holding k and (k, k + 1, k + 2)."""
    series = series or Series(COLUMNS, torch.device("cpu"))
    for k in range(first, last):
        series.append(step=k, size=torch.arange(3) + k)
    return series


@pytest.mark.parametrize("rows", [0, 1, CHUNK_ROWS - 1, CHUNK_ROWS, 2 * CHUNK_ROWS + 5])
def test_rows_come_back(rows):
    """Oracle: numpy's own arange."""
    arrays = filled(0, rows).arrays()
    np.testing.assert_array_equal(arrays["step"], np.arange(rows))
    np.testing.assert_array_equal(arrays["size"], np.arange(rows)[:, None] + np.arange(3))


@pytest.mark.parametrize("stop", [0, 3, CHUNK_ROWS, CHUNK_ROWS + 1])
def test_state_comes_back(stop):
    """Oracle: rows saved, loaded into another series and continued are those of one series."""
    other = Series(COLUMNS, torch.device("cpu"))
    other.load_state_dict(filled(0, stop).state_dict())
    arrays = filled(stop, stop + CHUNK_ROWS, other).arrays()
    np.testing.assert_array_equal(arrays["step"], np.arange(stop + CHUNK_ROWS))


@pytest.mark.parametrize("since", [0, 7, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 3, 2 * CHUNK_ROWS + 9])
@pytest.mark.parametrize("resumed", [False, True])
def test_the_latest_rows_come_alone(since, resumed):
    """Oracle: the end of numpy's arange; after a resume as well."""
    series = filled(0, 2 * CHUNK_ROWS + 9)
    if resumed:
        state, series = series.state_dict(), Series(COLUMNS, torch.device("cpu"))
        series.load_state_dict(state)
    assert len(series) == 2 * CHUNK_ROWS + 9
    arrays = series.arrays(since)
    np.testing.assert_array_equal(arrays["step"], np.arange(since, 2 * CHUNK_ROWS + 9))
    assert arrays["size"].shape == (2 * CHUNK_ROWS + 9 - since, 3)


def test_a_column_that_a_state_lacks_is_zero():
    """Oracle: by hand, across a chunk's end: rows before the resume are 0, later ones as they come."""
    state = filled(0, CHUNK_ROWS + 2).state_dict()
    del state["size"]
    other = Series(COLUMNS, torch.device("cpu"))
    other.load_state_dict(state)
    sizes = filled(5, 6, other).arrays()["size"]
    assert len(sizes) == CHUNK_ROWS + 3 and not sizes[:-1].any() and sizes[-1].tolist() == [5, 6, 7]


def test_arrays_are_not_shared():
    """Oracle: rows that come later do not change arrays that were handed out."""
    series = filled(0, 2)
    arrays = series.arrays()
    filled(5, 5 + CHUNK_ROWS, series)
    assert arrays["step"].tolist() == [0, 1]
