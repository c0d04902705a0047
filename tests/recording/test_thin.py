"""A thinned recording is a part of the whole one, value for value."""

import numpy as np
import pytest
import torch

from oscillab.recording.recorder import record
from oscillab.recording.tables import layers, periodicity, ranges, trajectories, weights
from oscillab.recording.thin import PER, matching


@pytest.fixture
def recording(fakes):
    """Three layers that move: of one step size a row, of other bits, and without a range."""
    net = torch.nn.Sequential(
        fakes.Layer(np.zeros((2, 5)), step_size=torch.tensor([0.5, 0.25])),
        fakes.Layer(np.zeros((3, 4)), bits=8),
        fakes.Layer(np.zeros((1, 7)), has_range=False),
    )
    optimizer, generator = torch.optim.SGD(net.parameters(), lr=0.0), torch.Generator().manual_seed(0)
    with record(net, optimizer, trajectories=4, ranges_every=3) as recorder:
        for _ in range(260):
            for layer in net:
                layer.weight.data += 0.1 * torch.randn(layer.weight.shape, generator=generator)
            optimizer.step()
    return recorder.recording()


@pytest.mark.parametrize("names", [["0"], ["2", "1"], ["2"], ["0", "1", "2"]])
def test_tables_of_some_layers(recording, names):
    """Oracle: the rows of the whole recording's tables that belong to these layers."""
    part = recording.thinned(layers=names)
    assert part.layer_names == sorted(names) and part.meta["tick_count"] == 260
    for table in (layers, ranges, periodicity):
        whole = table(recording)
        expected = whole[whole["layer"].isin(names)].reset_index(drop=True)
        assert (expected.empty and table(part).empty) or table(part).equals(expected), table.__name__
    for name in names:
        assert weights(part, name).equals(weights(recording, name))
        assert trajectories(part, name).equals(trajectories(recording, name))


def test_every_array_is_known(recording):
    """Oracle: the arrays of a recording: each either counts something of layers or only time."""
    known = {name for names in PER.values() for name in names}
    over_time = {"step", "range_step", "step_sizes_step", "window_first_tick", "window_last_tick"}
    assert recording.arrays.keys() <= known | over_time
    part = recording.thinned(layers=["0"])
    assert part["window_flip_count"].shape == (2, 10) and part["step_sizes"].shape == (2, 2)
    assert part["window_flip_count"].sum() == recording["window_flip_count"][:, :10].sum() > 0


def test_patterns(recording):
    """Oracle: by hand; a pattern that matches nothing is an error in one line."""
    assert matching(recording, ["[12]"]) == ["1", "2"]
    with pytest.raises(ValueError, match=r"^no layer matches 'model.4.\*'; the recording has 0, 1, 2, ...$"):
        matching(recording, ["model.4.*"])


def test_layers_and_time(recording):
    """Oracle: the layer's rows of the whole recording, every fifth."""
    small = recording.thinned(layers=["1"], every=5, windows=False, trajectories=False)
    assert small.layer_names == ["1"] and len(small.steps) == 53
    assert not {"window_flip_count", "latent_weight"} & small.arrays.keys()
    np.testing.assert_array_equal(small["step_size"][:, 0], recording["step_size"][::5, 1])
