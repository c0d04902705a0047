"""The network that the tests of remedies train."""

import pytest


@pytest.fixture
def tiny(tiny_network):
    """The small network of all rooms that train."""
    return tiny_network
