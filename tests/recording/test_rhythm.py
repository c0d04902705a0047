"""Are cycles as long as they are?"""

import doctest

import numpy as np
import pytest

from oscillab.recording import rhythm
from oscillab.recording.rhythm import autocorrelation, cycle_lengths, rhythms


def square_wave(steps, period, high):
    """States 0 and 1 of a weight that is up for `high` of every `period` steps."""
    return (np.arange(steps) % period < high).astype(np.int8)


def test_autocorrelation_peaks_at_the_period():
    """Oracle: a square wave of period 8 correlates with itself at lag 8 as 1 - 8 / 400, and least half-way."""
    states = square_wave(400, 8, 4)[:, None]
    found = autocorrelation(states, 12)[:, 0]
    assert found[0] == 1 and found[8] == pytest.approx(1 - 8 / 400) and found.argmin() == 4
    assert np.isnan(autocorrelation(np.ones((10, 1)), 3)).all()
    with pytest.raises(ValueError, match="below the 10 steps, got 10"):
        autocorrelation(np.ones((10, 1)), 10)


@pytest.mark.parametrize(("period", "high"), [(2, 1), (5, 1), (12, 7)])
def test_cycle_length_is_the_period(period, high):
    """Oracle: the period of a square wave; a weight that climbs once has none."""
    states = np.stack([square_wave(120, period, high), np.arange(120) > 60], axis=1)
    assert cycle_lengths(states).tolist() == [period, pytest.approx(np.nan, nan_ok=True)]


def test_rhythms_of_a_recording(fakes):
    """Oracle: by hand: the last half of 64 ticks of a wave of period 4 that is up 1 step of 4, and of a weight at rest."""
    states = np.stack([square_wave(65, 4, 1), np.zeros(65)], axis=1)
    _, recording = fakes.run(states, trajectories=2)
    table = rhythms(recording, last=32 / 65)
    wave, rest = table.iloc[0], table.iloc[1]
    assert (wave["layer"], wave["weight"], wave["cycle_length"]) == ("stem", 0, 4)
    assert wave["upper_share"] == 8 / 32 and wave["flip_count"] == wave["oscillation_count"] + 1
    assert rest["flip_count"] == 0 and np.isnan(rest["cycle_length"])
    assert table["layer"].tolist() == ["stem", "stem", "block.1", "block.1"]
    with pytest.raises(ValueError, match="last must be above 0"):
        rhythms(recording, last=2)


def test_examples_run():
    """Oracle: the docstring's own numbers."""
    assert doctest.testmod(rhythm).failed == 0
