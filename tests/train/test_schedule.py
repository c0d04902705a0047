"""The schedule of the published code, against its closed form."""

import math

import pytest

from oscillab.train.remedies import check_share, cosine_between


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_the_published_cosine(share):
    """Oracle: N-code's closed form end + (start - end) (1 + cos(pi * relative)) / 2 after a constant first quarter."""
    relative = (share - 0.25) / 0.75
    expected = 0.01 + 0.5 * (0.04 - 0.01) * (1 + math.cos(math.pi * relative))
    assert cosine_between(0.04, 0.01, share) == pytest.approx(expected, rel=1e-12)


def test_ends():
    """Oracle: the start is kept to the last digit in the first quarter, the end is met and stays beyond the run."""
    assert [cosine_between(0.0, 3.0, share) for share in (0.0, 0.1, 0.25)] == [0.0, 0.0, 0.0]
    assert cosine_between(0.0, 3.0, 1.0) == cosine_between(0.0, 3.0, 1.5) == pytest.approx(3.0, rel=1e-12)


def test_bad_share():
    """Oracle: the sentence a user reads."""
    with pytest.raises(ValueError, match="begin must be in 0 <= begin < 1 .*, got 1"):
        check_share("begin", 1)
