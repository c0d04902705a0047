"""Do the tables say what happened?"""

from dataclasses import replace

import numpy as np
import pytest

import oscillab
from oscillab.recording import oscillation
from oscillab.recording.counting import count_oscillations
from oscillab.recording.oscillation import (
    compare,
    flip_rate,
    layers,
    oscillating_share,
    over_time,
    ranges,
    trajectories,
    weights,
)

STATES = np.array([[0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 2], [1, 0, -1, 3], [0, 0, -1, 3]])  # 4 steps of 4 weights


@pytest.fixture
def recording(fakes):
    """Weight 0 turns at every step, 1 rests, 2 flips once, 3 climbs three times; a second layer of 8 bit rests."""
    return fakes.run(STATES, trajectories={"stem": [0, 3]}, momentum=0.1)[1]


def test_layers_by_hand(recording):
    """Oracle: 8 flips (4 + 0 + 1 + 3) and 3 oscillations in 4 steps of 4 weights; 1 flip in the last step."""
    stem, rest = layers(recording).to_dict("records")
    assert (stem["layer"], stem["bits"], stem["weight_count"]) == ("stem", 3, 4)
    assert (stem["flip_rate"], stem["oscillation_rate"], stem["flip_rate_last"]) == (8 / 16, 3 / 16, 1 / 4)
    assert (stem["oscillating_share"], stem["still_share"], stem["dead_share"]) == (1 / 4, 1 / 4, 1 / 4)
    assert (stem["zero_share"], stem["saturated_share"], stem["used_state_count"]) == (2 / 4, 1 / 4, 3)
    assert (stem["step_size_first"], stem["step_size_last"], stem["step_size_spread"]) == (0.5, 0.5, 0.0)
    assert rest["flip_rate"] == rest["oscillating_share"] == rest["entropy"] == 0 and rest["still_share"] == 1


def test_weights_by_hand(recording):
    """Oracle: counted by hand; weight 0 oscillates at steps 2, 3 and 4, with momentum 0.1: 0.1, 0.19, 0.271."""
    table = weights(recording, "stem")
    assert table["flip_count"].tolist() == [4, 0, 1, 3] and table["oscillation_count"].tolist() == [3, 0, 0, 0]
    assert table["direction"].tolist() == [-1, 0, -1, 1] and table["integer_state"].tolist() == [0, 0, -1, 3]
    assert table["frequency"].tolist() == [pytest.approx(0.271), 0, 0, 0]
    assert table["oscillating"].tolist() == [True, False, False, False]


def test_distance_of_a_course_to_its_nearest_edge(recording):
    """Oracle: by hand: at a bin's middle the edge is half a bin away, above the highest state (3) the last edge is 2.5."""
    position = np.array([[0.0, 0.4], [0.5, 0.6], [-0.5, 4.0], [-3.5, -5.0], [1.25, 2.5]], np.float32)
    moved = replace(recording, arrays=recording.arrays | {"latent_weight": 0.5 * position})
    table = trajectories(moved, "stem")
    expected = [0.5, 0.1, 0.0, 0.1, 0.0, 1.5, 0.0, 1.5, 0.25, 0.0]
    np.testing.assert_allclose(table["edge_distance"], expected, atol=1e-6)


def test_over_time_by_hand(recording):
    """Oracle: flips per step by hand: 0, 2, 2, 3, 1 of 4 weights; a layer without a range has NaN."""
    table = over_time(recording)
    stem = table[table["layer"] == "stem"]
    assert stem["step"].tolist() == [0, 1, 2, 3, 4] and stem["flip_count"].tolist() == [0, 2, 2, 3, 1]
    assert stem["flip_rate"].tolist() == [0, 0.5, 0.5, 0.75, 0.25]
    assert (stem["clip_low"] == -1).all() and (stem["clip_high"] == 1).all()
    assert table.loc[table["layer"] == "block.1", "clip_low"].isna().all()


def test_trajectories_by_hand(recording):
    """Oracle: the states that the weights were taken to, at a step size of 0.5."""
    table = trajectories(recording, "stem")
    for weight in (0, 3):
        course = table[table["weight"] == weight]
        assert course["integer_state"].tolist() == STATES[:, weight].tolist()
        np.testing.assert_allclose(course["latent_weight"], STATES[:, weight] * 0.5, atol=1e-6)
        np.testing.assert_allclose(course["position"], STATES[:, weight], atol=1e-6)
    assert trajectories(recording, "block.1").empty


def test_ranges_of_a_model_that_sees_no_input(fakes):
    """Oracle: by hand: clipping ranges at steps 2 and 4; nothing was observed, and that is NaN and no number."""
    table = ranges(fakes.run(STATES, ranges_every=2)[1])
    assert table["step"].tolist() == [2, 4] and table["layer"].tolist() == ["stem", "stem"]
    assert (table["clip_high"] == 1).all()
    assert table[["observed_low", "observed_high", "clipped_share"]].isna().to_numpy().all()
    empty = ranges(fakes.run(STATES, ranges_every=0)[1])
    assert empty.empty and list(empty.columns) == list(table.columns)
    assert ranges(fakes.run(STATES)[1]).empty  # the first is due at step 10


def test_compare_by_hand(fakes, recording):
    """Oracle: the two tables of layers; the change of the flip rate is minus half a flip per step where it stopped."""
    still = fakes.run(STATES[:1].repeat(5, 0))[1]
    table = compare(recording, still).set_index(["layer", "quantity"])
    assert table.loc[("stem", "flip_rate")].tolist() == [0.5, 0.0, -0.5]
    assert table.loc[("block.1", "weight_count")].tolist() == [2, 2, 0]
    other = fakes.run(STATES)[1]
    other.meta["layers"] = [about | {"name": about["name"] + "x"} for about in other.layers]
    with pytest.raises(ValueError, match="no layer in common"):
        compare(recording, other)


def test_shares_and_rates_of_the_whole(recording):
    """Oracle: by hand: one of four 3-bit weights; the 8-bit layer counts when asked for; 1 flip in the last of 4 steps."""
    assert oscillating_share(recording) == 1 / 4 and oscillating_share(recording, max_bits=None) == 1 / 6
    assert (
        flip_rate(recording) == 1 / 4
        and flip_rate(recording, last=0.5) == 4 / 8
        and flip_rate(recording, last=1) == 8 / 16
    )
    assert flip_rate(recording, max_bits=None) == 1 / 6
    assert np.isnan(oscillating_share(recording, max_bits=2)) and np.isnan(flip_rate(recording, max_bits=2))
    with pytest.raises(ValueError, match="last must be above 0 and at most 1, got 0"):
        flip_rate(recording, last=0)


def test_layers_of_unknown_bits_count(recording):
    """Oracle: by hand: with both layers' bits unknown, one of six weights oscillates."""
    recording.meta["layers"] = [about | {"bits": None} for about in recording.layers]
    assert oscillating_share(recording) == 1 / 6


def test_rates_are_per_step_where_not_every_step_is_recorded(fakes):
    """Oracle: by hand: states of steps 0, 2, 4 differ at 1 and 1 weights (3, then 2 and 3 change: 3 flips in all)."""
    _, recording = fakes.run(STATES, every=2)
    flips = (np.diff(STATES[::2], axis=0) != 0).sum()
    assert flip_rate(recording, last=1) == flips / 4 / 4 == layers(recording)["flip_rate"][0]


def test_a_recording_without_a_step(fakes):
    """Oracle: rates of nothing are not a number or 0, and no error."""
    _, recording = fakes.run(STATES[:1])
    assert np.isnan(flip_rate(recording)) and oscillating_share(recording) == 0
    assert layers(recording)["flip_rate"].tolist() == [0, 0] and len(over_time(recording)) == 2


def test_public_name():
    """Oracle: the name that users call."""
    assert oscillab.count_oscillations is count_oscillations
    assert set(oscillation.__all__) <= set(dir(oscillation))
