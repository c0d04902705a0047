"""Do the tables say what happened, and are shares, entropy and distances those of the weights?"""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from oscillab.plot.network import draw_layers
from oscillab.recording.recorder import record
from oscillab.recording.tables import (
    compare,
    edge_distances,
    flip_rate,
    layers,
    occupancy,
    oscillating_share,
    over_time,
    positions,
    ranges,
    state_summary,
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


def test_tables_join_layers_by_name(fakes):
    """Oracle: by hand: two recordings of the same layers in another order: each layer's own numbers, and no change."""
    made = {"a": fakes.Layer([[0.0, 0.0]]), "b": fakes.Layer([[0.0] * 5], bits=2)}
    runs = []
    for names in ("ab", "ba"):
        with record(nn.ModuleDict({name: made[name] for name in names}), fakes.Average()) as recorder:
            pass
        runs.append(recorder.recording())
    table = compare(*runs).set_index(["layer", "quantity"])
    assert table.loc[("a", "weight_count")].tolist() == [2, 2, 0] and table.loc[("b", "weight_count")].tolist() == [
        5,
        5,
        0,
    ]
    with pytest.raises(ValueError, match="one and other cannot be compared"):
        draw_layers(dict(zip(("one", "other"), runs, strict=True)))


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
    recording.meta["layers"] = [about | {"bits": None} for about in recording.layers]
    assert oscillating_share(recording) == 1 / 6  # layers of unknown bits count


def test_rates_are_per_step_where_not_every_step_is_recorded(fakes):
    """Oracle: by hand: states of steps 0, 2, 4 differ at 1 and 1 weights (3, then 2 and 3 change: 3 flips in all)."""
    _, recording = fakes.run(STATES, every=2)
    flips = (np.diff(STATES[::2], axis=0) != 0).sum()
    assert flip_rate(recording, last=1) == flips / 4 / 4 == layers(recording)["flip_rate"][0]


def test_a_recording_without_a_step(fakes):
    """Oracle: rates of nothing are not a number and never 0, no error; the table says why."""
    _, recording = fakes.run(STATES[:1])
    assert np.isnan(flip_rate(recording)) and oscillating_share(recording) == 0
    table = layers(recording)
    assert table[["flip_rate", "oscillation_rate", "flip_rate_last"]].isna().to_numpy().all()
    assert "no optimizer step was seen" in table.attrs["gaps"][0] and len(over_time(recording)) == 2


@pytest.fixture
def spread(fakes):
    """`spread(latent positions)`: a recording of a 3-bit layer that ends with its weights at these positions."""
    return lambda places: fakes.run(np.array([np.zeros(len(places)), places]))[1]


def test_occupancy_by_hand(spread):
    """Oracle: eight weights counted by hand; all states of 3 bits have a row."""
    table = occupancy(spread([0, 0, 0, 1, -4, -9, 3, 7]), "stem")
    assert table["state"].tolist() == list(range(-4, 4))
    assert table["weight_count"].tolist() == [2, 0, 0, 0, 3, 1, 0, 2]
    assert table["share"].sum() == 1


def test_summary_by_hand(spread):
    """Oracle: eight weights by hand: three at rest in 0, two at each end; entropy of 2/8, 3/8, 1/8, 2/8."""
    summary = state_summary(spread([0, 0, 0, 1, -4, -9, 3, 7]), "stem")
    assert summary["zero_share"] == summary["dead_share"] == summary["still_share"] == 3 / 8
    assert summary["saturated_share"] == 4 / 8 and summary["used_state_count"] == 4
    assert summary["entropy"] == pytest.approx(
        -(2 * 0.25 * np.log2(0.25) + 0.375 * np.log2(0.375) + 0.125 * np.log2(0.125))
    )


def test_distances_equal_numpy(spread):
    """Oracle: the distance to the nearest of the edges -3.5 ... 2.5, worked out in numpy for 2,000 weights inside -5..4."""
    cells = np.random.default_rng(0).integers(0, 9 * 40, 2000)
    places = -5 + (cells + 0.5) / 40  # in the middle of cells
    near = np.abs(places[:, None] - np.arange(-3.5, 3)).min(1).clip(max=0.4999)
    expected, _ = np.histogram(near, bins=20, range=(0, 0.5))
    recording = spread(places)
    table = edge_distances(recording, "stem")
    np.testing.assert_array_equal(table["weight_count"], expected)
    assert table["distance"].iloc[[0, -1]].tolist() == [0.0125, 0.4875]
    summary = state_summary(recording, "stem")
    assert summary["near_edge_share"] == pytest.approx((near < 0.05).mean())
    assert summary["edge_distance"] == pytest.approx(near.mean(), abs=0.0125)


def test_positions_of_start_and_end(spread):
    """Oracle: by hand; the density integrates to 1, and the first histogram holds where the weights began."""
    recording = spread([-1.49, 2.01])
    table = positions(recording, "stem")
    at = table.loc[table["weight_count"] > 0, "position"].tolist()
    assert at == [pytest.approx(-1.4875), pytest.approx(2.0125)]
    assert table["density"].sum() / 40 == pytest.approx(1)
    first = positions(recording, "stem", first=True)
    assert first.loc[first["weight_count"] > 0, "position"].tolist() == [pytest.approx(0.0125)]
    assert edge_distances(recording, "stem", first=True)["weight_count"].iloc[-1] == 2


def test_each_layer_has_its_own_cells(fakes):
    """Oracle: by hand: the 8-bit layer behind the 3-bit one rests at 0, half a bin from an edge."""
    _, recording = fakes.run([[0, 0], [1, 1]])
    table = positions(recording, "block.1")
    assert len(table) == (127 + 128 + 2) * 40
    assert table.loc[table["weight_count"] > 0, "position"].tolist() == [pytest.approx(0.0125)]
