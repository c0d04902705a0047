"""Average the networks of the last steps, step sizes included, without touching training.

The exponential moving average of latent weights and step sizes of 2311.05109 (Eqs. 6-8). It is passive: nothing flows
back into training, and the average is what is evaluated and exported.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from oscillab.quant import quantizers
from oscillab.train.config import HORIZON_SHARE

PAPER_DECAY = 0.9999  # over 184,900 steps: 100 epochs of COCO train2017 at batch 64
PAPER_RAMP = 2_000  # the ramp of YOLOv5's own average, a fifth of the horizon 1 / (1 - 0.9999)
PARTS = ("weights", "step_sizes", "buffers")


def decay_for(step_count: int, horizon: float = HORIZON_SHARE) -> float:
    """Return the decay whose horizon 1 / (1 - decay) is that share of a run of `step_count` steps, at most the paper's.

    0.9999 over a few hundred steps hardly leaves the starting point. Why a quarter: beside one 3-bit run of 500 steps on
    scenes (seed 0; LSQ 0.415) the decays 0.98, 0.988, 0.992, 0.994 and 0.996 gave mAP 0.500, 0.500, 0.508, 0.505 and
    0.493 (`python -m benchmarks.ema_decays`).
    """
    if step_count < 1:
        raise ValueError(f"step_count must be at least 1, got {step_count}")
    if not 0 < horizon <= 1:
        raise ValueError(f"an average's horizon must be in 0 < horizon <= 1 (a share of the run), got {horizon}")
    return min(PAPER_DECAY, round(1 - 1 / max(step_count * horizon, 1.0), 6))


def ramp_for(step_count: int, horizon: float = HORIZON_SHARE) -> float:
    """Return the ramp, in updates, that is to `decay_for` what 2,000 is to 0.9999: a fifth of the horizon."""
    return round(PAPER_RAMP * (1 - PAPER_DECAY) / (1 - decay_for(step_count, horizon)), 1)


class Ema:
    """A passive average of a model: latent weights, biases, BN (running statistics too) and every step size.

    `decay`: share of the old average that is kept by a step, 0 (no average) to below 1.
    `ramp`: the decay of update n is `decay * (1 - exp(-n / ramp))`, which starts at 0 as the paper asks; 0 is no ramp.
    `parts`: which of "weights", "step_sizes" and "buffers" are averaged; the others are copied from the live model.
    Build it after `quantize`, so that the average has the step sizes. `ema.model` is the averaged model, in eval mode.
    """

    def __init__(
        self, model: nn.Module, *, decay: float = PAPER_DECAY, ramp: float = PAPER_RAMP, parts: Iterable[str] = PARTS
    ):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in 0 <= decay < 1, got {decay}")
        if ramp < 0:
            raise ValueError(f"ramp must be 0 or more updates, got {ramp}")
        if unknown := set(parts) - set(PARTS):
            raise ValueError(f"parts must be among {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
        self.decay, self.ramp, self.parts = decay, ramp, tuple(parts)
        self.live, self.update_count = model, 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()
        self._pair_tensors()

    @classmethod
    def for_steps(
        cls,
        model: nn.Module,
        step_count: int,
        *,
        decay: float | None = None,
        ramp: float | None = None,
        horizon: float = HORIZON_SHARE,
        **options: Any,
    ) -> "Ema":
        """Return an average that suits a run of `step_count` steps: `decay_for` and `ramp_for` where None is given.

        `horizon`: 1 / (1 - decay) as a share of the run.
        """
        decay = decay_for(step_count, horizon) if decay is None else decay
        return cls(model, decay=decay, ramp=ramp_for(step_count, horizon) if ramp is None else ramp, **options)

    def current_decay(self) -> float:
        """Return the decay of the update that was made last; 0 before the first."""
        return self.decay * (1 - math.exp(-self.update_count / self.ramp) if self.ramp else 1.0)

    def names(self) -> set[str]:
        """Return the names of the tensors that are averaged; every step size among them."""
        return set(self._averaged)

    @torch.no_grad()
    def update(self) -> None:
        """Move the average one step towards the live model; call it after every optimizer step.

        Raises ValueError where a parameter or a module was replaced since the average was built.
        """
        moved = [seen[:-1] for seen in self._seen if tuple(map(id, seen[2].values())) != seen[-1]]
        for where, kind, now, before in moved:
            if kind != "_buffers" or now.keys() != before.keys():
                changed = next(key for key in {**before, **now} if now.get(key) is not before.get(key))
                raise ValueError(
                    f"{where}{'.' if where else ''}{changed} was added, removed or replaced since the average was built: "
                    "build Ema after quantize and whatever else changes the model's modules"
                )
        if moved:  # buffers alone, as `model.to` makes them anew
            self._pair_tensors()
        self.update_count += 1
        torch._foreach_lerp_(self._average, self._source, 1 - self.current_decay())
        for target, source in self._copies:
            target.copy_(source)
        for hook in list(self._hooks.values()):
            hook(self, (), {})

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(ema, args, kwargs)` after every update, as an optimizer's hooks are; return a handle that removes it."""
        handle = RemovableHandle(self._hooks)
        self._hooks[handle.id] = hook
        return handle

    def state_dict(self) -> dict[str, Any]:
        """Return what a later run needs to continue: the averaged tensors and the number of updates."""
        return {"model": self.model.state_dict(), "update_count": self.update_count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, made by `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.update_count = int(state["update_count"])

    def _pair_tensors(self) -> None:
        """Pair every averaged tensor with its live one, once, whatever the number of its names."""
        live, average = self.live.state_dict(keep_vars=True), self.model.state_dict()
        part = {id(t): "weights" if isinstance(t, nn.Parameter) else "buffers" for t in live.values()}
        for grid in quantizers(self.live).values():  # offsets, and the floors of step sizes too
            part |= dict.fromkeys(map(id, grid.state_dict(keep_vars=True).values()), "step_sizes")
        self._averaged = [n for n, t in live.items() if t.is_floating_point() and part[id(t)] in self.parts]
        memory = {(t.data_ptr(), t.shape, t.stride()): n for n, t in reversed(average.items())}  # of one name each
        once, averaged = set(memory.values()), set(self._averaged)
        self._average = [average[name] for name in self._averaged if name in once]
        self._source = [live[name] for name in self._averaged if name in once]
        self._copies = [(average[name], live[name]) for name in live if name in once - averaged]
        kinds = ("_parameters", "_buffers", "_modules")
        held = ((name, kind, vars(module)[kind]) for name, module in self.live.named_modules() for kind in kinds)
        self._seen = [(name, kind, now, dict(now), tuple(map(id, now.values()))) for name, kind, now in held]
