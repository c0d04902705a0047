"""Stop the step sizes late in training.

How much of the oscillation comes from them, which move all bin edges of a layer at once? (Asked for by OFQ, 2302.02210,
and by the scale oscillation that 2311.05109 shows in its Fig. 2.) Weights can then still flip, but no longer because the
grid moved under them.
"""

from collections.abc import Collection
from typing import Any, Self

import torch
from torch import nn

from oscillab.quant import step_sizes
from oscillab.train.remedies import Remedy, check_share

PARTS = ("weights", "activations")


class ScaleFreezing(Remedy):
    """Holds every step size (and offset) from `begin` of the run on, to the bit.

    `parts`: the step sizes of "weights", of "activations" or both. `remove` lets them learn again.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        *,
        begin: float = 0.75,
        parts: Collection[str] = PARTS,
    ):
        if not parts or set(parts) - set(PARTS):
            raise ValueError(f"parts must be among {', '.join(PARTS)}, got {', '.join(parts) or 'none'}")
        self.begin, self.parts = check_share("begin", begin), tuple(parts)
        self.held: list[nn.Parameter] = []
        super().__init__(model, optimizer, total_steps)

    def attach(self) -> Self:
        """Switch the remedy on."""
        self._hold_when_due()
        return super().attach()

    def after_step(self) -> None:
        """Hold the step sizes when `begin` has come."""
        self._hold_when_due()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, made by `state_dict`."""
        super().load_state_dict(state)
        self._release()
        self._hold_when_due()

    def remove(self) -> None:
        """Switch the remedy off: the step sizes learn again."""
        super().remove()
        self._release()

    def _hold_when_due(self) -> None:
        if self.held or self.share < self.begin:
            return
        kinds = {"weights": "weight_quantizer.", "activations": "input_quantizer."}
        chosen = [p for name, p in step_sizes(self.model).items() if any(kinds[part] in name for part in self.parts)]
        self.held = [parameter for parameter in chosen if parameter.requires_grad]
        for parameter in self.held:
            parameter.requires_grad_(False)
            parameter.grad = None  # an optimizer leaves alone what has no gradient, momentum or not

    def _release(self) -> None:
        for parameter in self.held:
            parameter.requires_grad_(True)
        self.held = []
