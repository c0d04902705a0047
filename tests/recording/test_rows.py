"""Is a tick written down under the right layer?"""

import torch

from oscillab.recording.gradients import GradientSigns
from oscillab.recording.rows import Rows
from oscillab.recording.sampling import Sample
from oscillab.recording.watched import WatchedLayers


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
