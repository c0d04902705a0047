"""Recordings and a table that the tests of the room share."""

import pytest
from handmade import make_recording, make_table


@pytest.fixture(scope="session")
def live():
    """A recording of weights that oscillate."""
    return make_recording()


@pytest.fixture(scope="session")
def average():
    """A recording of the same layers at a hundredth of the speed: hardly any flips."""
    return make_recording(speed=0.01)


@pytest.fixture
def table():
    """A study of two bit widths and two seeds."""
    return make_table()
