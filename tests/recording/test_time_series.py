"""Do rows over time come back whole, under the right layer, with the weights that were asked for?"""

import numpy as np
import pytest
import torch

from oscillab.recording.layers import WatchedLayers
from oscillab.recording.observers import GradientSigns
from oscillab.recording.time_series import CHUNK_ROWS, Rows, Sample, Series

COLUMNS = {"step": (None, torch.int64), "size": (3, torch.float32)}


def filled(first, last, series=None):
    """A series with the rows `first` to `last`, row k holding k and (k, k + 1, k + 2)."""
    series = series or Series(COLUMNS, torch.device("cpu"))
    for k in range(first, last):
        series.append(step=k, size=torch.arange(3) + k)
    return series


@pytest.mark.parametrize("stop", [0, 3, CHUNK_ROWS, CHUNK_ROWS + 1])
def test_state_comes_back(stop):
    """Oracle: rows saved, loaded into another series and continued are those of one series."""
    other = Series(COLUMNS, torch.device("cpu"))
    other.load_state_dict(filled(0, stop).state_dict())
    arrays = filled(stop, stop + CHUNK_ROWS, other).arrays()
    np.testing.assert_array_equal(arrays["step"], np.arange(stop + CHUNK_ROWS))


@pytest.mark.parametrize("since", [0, 7, CHUNK_ROWS, 2 * CHUNK_ROWS + 9])
def test_the_latest_rows_come_alone(since):
    """Oracle: the end of numpy's arange; after a resume as well."""
    series, other = filled(0, 2 * CHUNK_ROWS + 9), Series(COLUMNS, torch.device("cpu"))
    other.load_state_dict(series.state_dict())
    for one in (series, other):
        assert len(one) == 2 * CHUNK_ROWS + 9
        arrays = one.arrays(since)
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


def test_counts_go_to_their_layer(fakes):
    """Oracle: by hand: weights 0 to 2 are the stem's, 3 and 4 the block's."""
    layers = WatchedLayers(fakes.Net([[0.0, 0.0, 0.0]], [[0.0, 0.0]]))
    rows = Rows(layers, Sample(layers, 0, seed=0), GradientSigns(layers))
    state, sizes = torch.zeros(5, dtype=torch.int8), torch.tensor([0.5, 0.25])
    rows.add_tick(7, torch.tensor([0, 2, 3]), torch.tensor([4]), step_sizes=sizes, state=state)
    arrays = rows.arrays()
    assert arrays["step"].tolist() == [7]
    assert arrays["layer_flip_count"].tolist() == [[2, 1]] and arrays["layer_oscillation_count"].tolist() == [[0, 1]]
    assert arrays["step_size"].tolist() == [[0.5, 0.25]]
    assert arrays["clip_low"].tolist() == [[-1.0]]  # the block's layer has no range


def test_what_a_model_lacks_takes_no_column(fakes):
    """Oracle: no ranges, no columns of ranges; one step size per layer, no columns of least and largest."""
    layers = WatchedLayers(fakes.Net([[0.0]], has_range=False))
    arrays = Rows(layers, Sample(layers, 1, seed=0), GradientSigns(layers)).arrays()
    assert not {"clip_low", "observed_low", "range_step", "step_size_min", "step_sizes"} & arrays.keys()


@pytest.fixture
def layers(fakes):
    """Layers of 6 and 100 weights; the first has one step size per row."""
    net = fakes.Net(np.arange(6).reshape(2, 3) - 3, np.zeros((10, 10)), step_size=torch.tensor([0.5, 0.25]))
    return WatchedLayers(net)


def test_drawn_by_seed(layers):
    """Oracle: invariants: as many as asked or all, ascending, none twice, the same for a seed, others for another."""
    one, same, other = (Sample(layers, 8, seed=seed).index for seed in (0, 0, 1))
    assert one[:6].tolist() == [0, 1, 2, 3, 4, 5] and len(one) == 6 + 8
    assert (np.diff(one) > 0).all() and one[-1] < 106
    assert one.tolist() == same.tolist() != other.tolist()


def test_named_by_layer(layers):
    """Oracle: by hand: weight 4 of the stem is in row 1, whose step size is 0.25."""
    sample = Sample(layers, {"block.1": [99, 3], "stem": [4]}, seed=0)
    assert sample.index.tolist() == [4, 9, 105]
    state = torch.arange(106, dtype=torch.int8)
    rows = sample.rows(torch.tensor([0.5, 0.25, 2.0]), state)
    assert rows["latent_weight"].tolist() == [1 * 0.25, 0.0, 0.0]
    assert rows["sample_step_size"].tolist() == [0.25, 2.0, 2.0]
    assert rows["sample_state"].tolist() == [4, 9, 105]


@pytest.mark.parametrize(
    ("trajectories", "message"),
    [
        (-1, "0 or more weights per layer, got -1"),
        ({"stem": [6]}, r"layer 'stem' must lie in 0..5, got \[6\]"),
        ({"stem": [-1]}, "must lie in 0..5"),
        ({"neck": [0]}, "name 'neck', which is not a quantized layer"),
    ],
)
def test_bad_choices_say_what_is_allowed(layers, trajectories, message):
    """Oracle: the error names what was given and what is allowed."""
    with pytest.raises(ValueError, match=message):
        Sample(layers, trajectories, seed=0)
