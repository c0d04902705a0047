"""Are the weights whose course is kept the ones that were asked for?"""

import numpy as np
import pytest
import torch

from oscillab.recording.sampling import Sample
from oscillab.recording.watched import WatchedLayers


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


def test_none_at_all(layers):
    """Oracle: empty rows, no error."""
    rows = Sample(layers, 0, seed=0).rows(torch.ones(3), torch.zeros(106, dtype=torch.int8))
    assert all(len(row) == 0 for row in rows.values())


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
