"""Are settings that make no sense refused?"""

import pytest

from oscillab.recording.settings import Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 0}, "momentum must be above 0 and at most 1, got 0"),
        ({"momentum": 2}, "momentum must be above 0 and at most 1, got 2"),
        ({"threshold": -1}, "threshold must be 0 or more, got -1"),
        ({"every": 0}, "every must be 1 or more, got 0"),
        ({"ranges_every": -1}, "ranges_every must be 0 or more, got -1"),
        ({"windows": 0}, "windows must be 1 or more, got 0"),
    ],
)
def test_bad_settings_say_what_is_allowed(options, message):
    """Oracle: the error names what was given and what is allowed."""
    with pytest.raises(ValueError, match=message):
        Settings(**options)


def test_defaults_are_those_of_the_published_tracker():
    """Oracle: 2203.11086: momentum 0.01, oscillating above 0.005."""
    assert (Settings().momentum, Settings().threshold) == (0.01, 0.005)
