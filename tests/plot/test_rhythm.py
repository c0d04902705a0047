"""The figure of autocorrelation, against its closed form for a weight that jumps at every other step."""

import numpy as np
import pytest

from oscillab.plot.rhythm import draw_autocorrelation
from oscillab.recording.recording import Recording


def test_a_regular_oscillation_comes_back(live):
    """Oracle: by hand: a state that changes every second step has a cycle of four: 1, 0, -1, 0, 1 up to the ends."""
    states = np.zeros_like(live["sample_state"])
    states[:, 4] = np.arange(len(states)) // 2 % 2
    recording = Recording(live.meta, live.arrays | {"sample_state": states})
    axes = draw_autocorrelation(recording, "middle", last=100, count=1, lag_count=8).axes[0]
    curve = axes.lines[0].get_ydata()
    np.testing.assert_allclose(curve, [1, 0, -1, 0, 1, 0, -1, 0, 1], atol=0.09)  # a lag leaves out as many of 100 steps
    assert axes.lines[0].get_label() == "weight 0: a cycle takes 4.0 steps"


def test_weights_that_rest_are_refused(live, make_recording):
    """Oracle: the documented errors."""
    still = Recording(live.meta, live.arrays | {"sample_state": np.zeros_like(live["sample_state"])})
    with pytest.raises(ValueError, match="no sampled weight of layer 'middle' flips in the last 250 steps"):
        draw_autocorrelation(still, "middle")
    with pytest.raises(ValueError, match="no weight of layer 'middle' has a recorded trajectory"):
        draw_autocorrelation(make_recording(sampled=0), "middle")
