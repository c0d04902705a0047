"""Hold a learned grid, filled by calibration or from a state_dict (`Quantizer`)."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .lsq import GRADIENT_MASKS, bin_limits, check_bits, check_choice, lsq
from .step_size_init import INITS, lsq_step_size, mse_range, mse_step_size, sample

# Of a step size's first value: low enough to leave training alone, high enough for the layer to live until its gradient lifts it
FLOOR_RATIO = 2.0**-4
SAMPLE_COUNT = 2**16  # values that an initial step size is searched on
CHANNEL_SAMPLE_COUNT = 2**11  # and those of each channel


class Quantizer(nn.Module):
    """A learned grid s * (low..high) + offset; `step_size` is 0-d or (channels,), `offset` 0-d or None.

    `signed=None` lets calibration decide: signed where it sees a negative value. `per_sample` counts the features of
    one picture, not of the batch, as N in LSQ's gradient scale 1 / sqrt(N * Qp) (N_F of 1902.08153). With `enabled`
    False it hands its input through, which gives the float network.
    """

    step_size: nn.Parameter
    offset: nn.Parameter | None
    floor: Tensor
    limits: Tensor
    held: Tensor

    def __init__(
        self,
        bits: int,
        *,
        signed: bool | None = True,
        affine: bool = False,
        channels: int | None = None,
        init: str = "mse",
        gradient_mask: str = "unrounded",
        gradient_scale: bool = True,
        per_sample: bool = False,
    ):
        super().__init__()
        self.bits, self.signed, self.per_sample = check_bits(bits), signed, per_sample
        self.init = check_choice("init", init, INITS)
        self.gradient_mask = check_choice("gradient_mask", gradient_mask, GRADIENT_MASKS)
        self.gradient_scale = gradient_scale
        self.low = self.high = 0  # not calibrated
        self.enabled = True
        self.warned = False  # whether a held step size was reported
        shape = () if channels is None else (channels,)
        self.step_size = nn.Parameter(torch.ones(shape))
        self.register_parameter("offset", nn.Parameter(torch.zeros(())) if affine else None)
        self.register_buffer("floor", torch.zeros(shape))
        self.register_buffer("limits", torch.zeros(2))  # low and high for the state_dict; forward reads the integers
        self.register_buffer("held", torch.zeros(shape, dtype=torch.long), persistent=False)

    @property
    def calibrated(self) -> bool:
        """Whether the grid is known, by `calibrate` or from a state_dict."""
        return self.high > 0

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` on the grid, or `x` itself where the quantizer is off; raise ValueError before calibration."""
        if not self.enabled:
            return x
        self._require_calibrated()
        return lsq(
            x,
            self.step_size,
            self.low,
            self.high,
            gradient_mask=self.gradient_mask,
            gradient_scale=self._gradient_scale(x),
            offset=self.offset,
            floor=self.floor,
            held=self.held if self.training else None,
        )

    def _gradient_scale(self, x: Tensor) -> float:
        """Return 1 / sqrt(N * Qp) with N the values of `x` that share a step size (1902.08153, section 2.2)."""
        groups = x.shape[0] if self.per_sample else self.step_size.numel()
        return 1 / math.sqrt(max(1, x.numel() // max(1, groups)) * self.high) if self.gradient_scale else 1.0

    def effective_step_size(self) -> Tensor:
        """Return the step size that the forward pass uses, without gradient: `step_size`, or `floor` where it fell below."""
        self._require_calibrated()
        return torch.maximum(self.step_size.detach(), self.floor)  # a recorder asks at every step: no_grad takes longer

    def clipping_range(self) -> tuple[Tensor, Tensor]:
        """Return the lowest and the highest value that the grid holds, in the units of the input: 0-d or (channels,)."""
        step_size, offset = self.effective_step_size(), self.offset
        low, high = step_size * self.low, step_size * self.high
        return (low, high) if offset is None else (low + offset.detach(), high + offset.detach())

    @torch.no_grad()
    def calibrate(self, x: Tensor, *, lowest: float | None = None) -> None:
        """Set the limits and the initial step size (and offset) from the values `x`, in place.

        Per channel, `x` is (channels, ...). `lowest` is the smallest value of the data that `x` is a sample of. Raises
        ValueError where `x` is empty or holds a value that is not finite.
        """
        if x.numel() == 0 or not bool(torch.isfinite(x).all()):
            raise ValueError(f"calibration needs finite values, got {'none' if x.numel() == 0 else 'nan or inf'}")
        signed = self.signed
        if signed is None:
            signed = (x.min().item() if lowest is None else lowest) < 0
        low, high = bin_limits(self.bits, signed and self.offset is None)
        step_size, offset = self._initial(x.float() if x.element_size() < 4 else x, low, high)
        # all values equal zero: any grid fits, so that of the range 1 is taken
        self.step_size.copy_(torch.where(step_size > 0, step_size, torch.full_like(step_size, 1 / high)))
        self.floor.copy_(self.step_size * FLOOR_RATIO)
        self.held.zero_()
        if offset is not None and self.offset is not None:
            self.offset.copy_(offset)
        self.low, self.high = low, high
        self.limits.copy_(torch.tensor([low, high]))

    def _initial(self, x: Tensor, low: int, high: int) -> tuple[Tensor, Tensor | None]:
        """Return the first step size, and the first offset where the grid is affine."""
        alone = self.step_size.ndim == 0
        values = sample(x.flatten(), SAMPLE_COUNT) if alone else sample(x.flatten(1), CHANNEL_SAMPLE_COUNT)
        if self.offset is None:
            return mse_step_size(values, low, high) if self.init == "mse" else lsq_step_size(values, high), None
        if self.init == "mse":
            return mse_range(values, high)
        return lsq_step_size(values - values.min(), high), values.min()

    @torch.no_grad()
    def scale_steps(self, scale: Tensor) -> None:
        """Multiply the step size by the positive `scale` (channels,), which makes it per-channel."""
        step_size, floor = self.effective_step_size() * scale, self.floor * scale
        self._reshape(step_size.shape)
        self.step_size.copy_(step_size)
        self.floor.copy_(floor)

    def _reshape(self, shape: torch.Size) -> None:
        """Give the step size and what belongs to it that shape, the Parameter object staying the same."""
        self.step_size.data = self.step_size.new_ones(shape)
        self.floor, self.held = self.floor.new_zeros(shape), self.held.new_zeros(shape)

    def _require_calibrated(self) -> None:
        if self.high <= 0:
            raise ValueError("this quantizer is not calibrated: call calibrate(model, batches) or load a state_dict")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        limits = state_dict.get(prefix + "limits")
        if limits is not None:
            low, high = (round(value) for value in limits.tolist())
            known = (0, 0), bin_limits(self.bits, True), bin_limits(self.bits, False)
            if (low, high) not in known:
                rest[-1].append(f"{prefix}limits: a quantizer of {self.bits} bits cannot take the grid {low}..{high}")
                return
            self.low, self.high = low, high
        step_size = state_dict.get(prefix + "step_size")
        if step_size is not None and step_size.ndim == 1 and self.step_size.ndim == 0 and not self.per_sample:
            self._reshape(step_size.shape)  # it was made per-channel after it was built, as folding QC does
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Return bits, grid and gradient mask."""
        grid = f"{self.low}..{self.high}" if self.calibrated else "not calibrated"
        return f"bits={self.bits}, {grid}, {'affine, ' * (self.offset is not None)}gradient_mask={self.gradient_mask}"
