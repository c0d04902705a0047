"""How hard does a remedy act at which point of a run?"""

import math


def cosine_between(start, end, share, *, begin=0.25):
    """The value at `share` (0..1) of a run: `start` until `begin`, then half a cosine to `end`.

    The schedule of dampening's weight and of freezing's threshold in the code of 2203.11086, whose first quarter is
    left alone.

    >>> [round(cosine_between(0.04, 0.01, share), 3) for share in (0.0, 0.25, 0.625, 1.0)]
    [0.04, 0.04, 0.025, 0.01]
    """
    if share <= begin:
        return start
    relative = min(1.0, (share - begin) / (1 - begin))
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * relative))


def check_share(name, value):
    """`value` itself where it is a share of a run, 0 to below 1; raises ValueError otherwise."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in 0 <= {name} < 1 (a share of the run), got {value}")
    return value
