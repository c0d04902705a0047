"""See what trains around a recorder: the optimizer that must own the weights, and the other ranks.

All processes of a distributed training start from the same weights and add the same gradients, so their integer states
are the same to the last bit. A rank that has gone astray (a weight changed on one rank alone, another seed, a buffer that
is not shared) trains on without an error. Rank 0 records, the others compare.
"""

import zlib
from typing import Any

import torch
from torch import Tensor, nn

from oscillab.recording.layers import WatchedLayers


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


def check_owner(optimizer: Any, layers: WatchedLayers) -> None:
    """Raise ValueError when `optimizer` has parameter groups and none of them holds a recorded weight."""
    if not callable(getattr(optimizer, "register_step_post_hook", None)):
        raise ValueError(f"optimizer must have register_step_post_hook(hook), {type(optimizer).__name__} has not")
    if not hasattr(optimizer, "param_groups"):
        return
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(p) in owned for layer in layers.layers for p in layer.parameters()):
        raise ValueError(
            f"the optimizer ({type(optimizer).__name__}) owns the weights of none of the {len(layers.layers)} layers; "
            "give record() the optimizer that trains this model, built after quantizing"
        )
