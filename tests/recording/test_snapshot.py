"""Is a snapshot complete, and is a state taken only from a recorder of the same model and settings?"""

import json

import numpy as np
import pytest
import torch

import oscillab
from oscillab.recording.recorder import record
from oscillab.recording.snapshot import check_state, first_difference


def test_totals_are_the_sum_of_the_windows(fakes, random_states):
    """Oracle: the states themselves, 600 ticks in at most two windows, the last of them not yet closed."""
    states = random_states(601, 30, -8, 7)
    _, recording = fakes.run(states, bits=4, windows=2)
    flips = (np.diff(states.astype(int), axis=0) != 0).sum(0)
    np.testing.assert_array_equal(recording["window_flip_count"].sum(0)[:30], flips)
    np.testing.assert_array_equal(recording["flip_count"][:30], flips)
    assert recording["window_first_tick"].tolist() == [1, 251, 501]
    assert recording["window_last_tick"].tolist() == [250, 500, 600]


def test_a_snapshot_does_not_move(fakes):
    """Oracle: a copy of its arrays, taken before three more steps."""
    net = fakes.Net([[0.0, 0.0]])
    optimizer = torch.optim.SGD([net.stem.weight], lr=1.0)
    with record(net, optimizer) as recorder:
        fakes.step_to(optimizer, net.stem.weight, [0.5, 0.0])
        early = recorder.recording()
        before = {name: array.copy() for name, array in early.arrays.items()}
        for target in ([0.0, 0.0], [0.5, 0.5], [0.0, 0.0]):
            fakes.step_to(optimizer, net.stem.weight, target)
    for name, array in before.items():
        np.testing.assert_array_equal(early[name], array, err_msg=name)
    assert recorder.recording()["flip_count"].tolist() == [4, 2, 0, 0]


def test_histograms_are_of_the_start_and_of_the_end(fakes):
    """Oracle: by hand: two weights begin on state 0 and end on states 1 and -2, cells are 40 to a bin from -5 on."""
    _, recording = fakes.run([[0, 0], [1, -2]])
    assert np.flatnonzero(recording["position_count_first"][: 9 * 40]).tolist() == [5 * 40]
    assert np.flatnonzero(recording["position_count"][: 9 * 40]).tolist() == [3 * 40, 6 * 40]


def test_training_after_the_block_does_not_show(fakes):
    """Oracle: the positions at the end of the block, though weights moved on before the recording was read."""
    net = fakes.Net([[0.0, 0.0]])
    with record(net, fakes.Average()) as recorder:
        pass
    inside = recorder.recording()["position_count"]
    net.stem.weight.data.fill_(1.5)
    np.testing.assert_array_equal(recorder.recording()["position_count"], inside)


def test_meta_says_what_the_arrays_mean(fakes):
    """Oracle: what the test asked for; all of it fits into JSON."""
    recorder, recording = fakes.run([[0], [1]], momentum=0.1, threshold=0.02, seed=3)
    meta = json.loads(json.dumps(recording.meta))
    assert meta == recording.meta
    assert (meta["momentum"], meta["threshold"], meta["seed"], meta["step_count"]) == (0.1, 0.02, 3, 1)
    assert meta["versions"]["oscillab"] == oscillab.__version__ and meta["stopped"] is None
    assert meta["layers"][0] == {
        "name": "stem", "shape": [1, 1], "bits": 3, "low": -4, "high": 3, "step_count": 1, "has_range": True,
        "has_gradient": [False, False],
    }  # fmt: skip


def test_differing_names_the_first_difference():
    """Oracle: by hand."""
    assert first_difference({"a": 1, "b": 2}, {"a": 1, "b": 3}) == "b is 2 there and 3 here"
    assert first_difference({"a": 1}, {"a": 1, "c": 0}) == "c is None there and 0 here"
    assert first_difference(1, 2) == "1 and 2"


def test_a_state_of_another_version(fakes):
    """Oracle: the error names both versions; the same state is taken as it is."""
    net = fakes.Net([[0.0]])
    with record(net, fakes.Average()) as recorder:
        state = recorder.state_dict()
        check_state(recorder, state)
        with pytest.raises(ValueError, match="a recorder of other version: 7 and 1"):
            recorder.load_state_dict(state | {"version": 7})


def test_a_state_from_before_gradients_were_recorded(fakes):
    """Oracle: the states of the weights come back, and no gradient has turned."""
    net = fakes.Net([[0.0, 0.0]])
    optimizer = torch.optim.SGD([net.stem.weight], lr=1.0)
    with record(net, optimizer) as recorder:
        fakes.step_to(optimizer, net.stem.weight, [0.5, 0.0])
        state = recorder.state_dict()
    del state["gradient_signs"]
    with record(net, optimizer) as other:
        other.load_state_dict(state)
        fakes.step_to(optimizer, net.stem.weight, [0.0, 0.0])
    assert other.recording()["flip_count"].tolist() == [2, 0, 0, 0]
