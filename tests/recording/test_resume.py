"""Is a state taken only from a recorder of the same model and settings?"""

import pytest
import torch

from oscillab.recording.recorder import record
from oscillab.recording.resume import check_state, differing


def test_differing_names_the_first_difference():
    """Oracle: by hand."""
    assert differing({"a": 1, "b": 2}, {"a": 1, "b": 3}) == "b is 2 there and 3 here"
    assert differing({"a": 1}, {"a": 1, "c": 0}) == "c is None there and 0 here"
    assert differing(1, 2) == "1 and 2"


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
