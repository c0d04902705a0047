"""How is a recording made?"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How a recording is made; `record` explains each."""

    momentum: float = 0.01  # of the paper's predecessor, 2203.11086
    threshold: float = 0.005  # likewise: above it a weight counts as oscillating
    every: int = 1
    ranges_every: int = 10
    windows: int = 16
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.momentum <= 1:
            raise ValueError(f"momentum must be above 0 and at most 1, got {self.momentum}")
        if self.threshold < 0:
            raise ValueError(f"threshold must be 0 or more, got {self.threshold}")
        for name, least in (("every", 1), ("ranges_every", 0), ("windows", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, got {getattr(self, name)}")
