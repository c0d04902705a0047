"""See what trains around a recorder: the optimizer that must own the weights, what else moves them, the other ranks.

All processes of a distributed training start from the same weights and add the same gradients, so their integer states
are the same to the last bit. A rank that has gone astray (a weight changed on one rank alone, another seed, a buffer that
is not shared) trains on without an error. Rank 0 records, the others compare.
"""

import zlib
from typing import Any

import torch
from torch import Tensor, nn

from oscillab.recording.layers import WatchedLayers
from oscillab.recording.tracker import Tracker


class Ranks:
    """This process among those that train together; one alone where torch.distributed was not initialised.

    `every`: at how many ticks the ranks are compared; 0 never, and then this process records whatever its rank is.
    """

    def __init__(self, every: int):
        distributed = torch.distributed if torch.distributed.is_available() else None
        together = bool(every and distributed and distributed.is_initialized())
        self.count = torch.distributed.get_world_size() if together else 1
        self.rank = torch.distributed.get_rank() if together else 0
        self.every = every

    @property
    def records(self) -> bool:
        """Whether this process is the one that records."""
        return self.rank == 0

    def due(self, tick: int) -> bool:
        """Return whether the ranks are compared at this tick."""
        return self.count > 1 and tick % self.every == 0

    def compare(self, layers: WatchedLayers, states: Tensor, tick: int) -> None:
        """Raise ValueError, on every rank, where one differs from rank 0 in the integer states of a layer.

        Every rank has to call it at the same tick.
        """
        gathered: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(gathered, (tick, checksums(layers, states)))
        first_tick, first = gathered[0]
        for rank, (their_tick, theirs) in enumerate(gathered):
            if their_tick != first_tick:
                raise ValueError(
                    f"rank {rank} is at tick {their_tick}, rank 0 at {first_tick}: "
                    "the ranks must take the same steps, and record and resume together"
                )
            if names := [name for name in {**first, **theirs} if theirs.get(name) != first.get(name)]:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                raise ValueError(f"rank {rank} differs from rank 0 in the integer states of layer '{names[0]}'{more}")


def checksums(layers: WatchedLayers, states: Tensor) -> dict[str, int]:
    """Return the CRC-32 of each layer's integer states, in the order of flat indices, by the layer's name."""
    ordered = layers.in_order(states).cpu().numpy()
    return {layer.name: zlib.crc32(ordered[layer.slice].tobytes()) for layer in layers.layers}


def without_wrapper(model: nn.Module) -> nn.Module:
    """Return the model inside of a DistributedDataParallel, so that its layers have the model's names; others as is."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def hooked(optimizer: Any) -> Any:
    """Return the optimizer whose steps call hooks: the given one, or the one inside its wrapper (`.optimizer`).

    accelerate's wrapper, for one, inherits `register_step_post_hook` but never has what it registers with.
    """
    found = optimizer
    for _ in range(8):  # wrappers in wrappers
        own = not isinstance(found, torch.optim.Optimizer) or "_optimizer_step_post_hooks" in vars(found)
        if own and callable(getattr(found, "register_step_post_hook", None)):
            return found
        found = getattr(found, "optimizer", None)
    raise ValueError(f"optimizer must have register_step_post_hook(hook), {type(optimizer).__name__} has not")


def unowned(optimizer: Any, layers: WatchedLayers) -> list[str]:
    """Return the names of layers whose weights are trained, but not by `optimizer`; none where it has no groups.

    Raises ValueError when it has parameter groups and none of them holds a recorded weight.
    """
    if not hasattr(optimizer, "param_groups"):
        return []
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(p) in owned for layer in layers.layers for p in layer.parameters()):
        raise ValueError(
            f"the optimizer ({type(optimizer).__name__}) owns the weights of none of the {len(layers.layers)} layers; "
            "give record() the optimizer that trains this model, built after quantizing"
        )
    return [one.name for one in layers.layers if any(p.requires_grad and id(p) not in owned for p in one.parameters())]


def skipped(optimizer: Any) -> bool:
    """Return whether a gradient scaler made a fused optimizer's step do nothing: a call, but no update."""
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf)


class Unseen:
    """Counts the flips that something else than the recorded optimizer's steps made."""

    def __init__(self, layers: WatchedLayers, tracker: Tracker):
        self.flip_count = self._found = 0
        self._layers, self._tracker = layers, tracker
        self._parameters = [p for module in layers.modules for p in module.parameters()]
        self.mark()

    def mark(self) -> None:
        """Remember the parameters as they are, which are now the tracker's, and count what `look` found before."""
        self.flip_count, self._found = self.flip_count + self._found, 0
        self._marked = self._stamps()

    def restore(self, flip_count: int) -> None:
        """Go on from an earlier count; the model may not be the one that it comes from."""
        self.flip_count, self._marked = flip_count, []

    @torch.no_grad()
    def look(self, scratch: Tensor) -> None:
        """Find what changed since `mark`; cheap where no parameter was written to (`p.data.add_` is the way unseen)."""
        self._found = 0
        if self._stamps() != self._marked:
            self._layers.read(scratch)
            self._found = len(self._tracker.changed(scratch))

    @torch.no_grad()
    def now(self, scratch: Tensor) -> int:
        """Return how many states differ from the tracker's; 0 where the layers cannot be read, which a step will say."""
        try:
            self._layers.read(scratch)
        except ValueError:
            return 0
        return len(self._tracker.changed(scratch))

    @torch.no_grad()
    def finish(self, scratch: Tensor, *, every_step: bool) -> str | None:
        """Look for the last time, and count where every step so far was; return what keeps the layers from being read."""
        try:
            self._layers.read(scratch)
        except ValueError as error:
            return f"{error}, seen at the end of the block"
        self.flip_count += len(self._tracker.changed(scratch)) if every_step else 0
        return None

    def _stamps(self) -> list[tuple[int, int]]:
        return [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in self._parameters]


def check_settings(settings: dict[str, Any]) -> None:
    """Raise ValueError for a setting of a recorder that makes no sense."""
    if not 0 < settings["momentum"] <= 1:
        raise ValueError(f"momentum must be above 0 and at most 1, got {settings['momentum']}")
    for name, least in (("threshold", 0), ("every", 1), ("ranges_every", 0), ("windows", 1), ("ranks_every", 0)):
        if settings[name] < least:
            raise ValueError(f"{name} must be {least} or more, got {settings[name]}")
