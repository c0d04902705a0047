"""Let several processes, each with a device of its own, train as if they were one, and split batches into micro-batches.

`torchrun --nproc-per-node 4 -m oscillab qat ...` starts them; each finds the others here. What they tell each other
beside gradients is small and goes over the CPU (gloo): sums of counts, a loss, a wish to stop. Rank 0 is the main process: it
alone calibrates, records, measures, writes files and speaks.

Micro-batches lie side by side in several processes, one after another in one (gradient accumulation), or both. Their
gradients add up if each loss is its share of the whole's: errors are averaged over the whole batch's matches, not its own.
"""

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import distributed, nn

from oscillab.data.batches import Batch

log = logging.getLogger(__name__)


class World:
    """This process, `rank` (from 0), among the `size` that work together; by default one alone."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size, self.is_main = rank, size, rank == 0

    def sum(self, values: Iterable[float]) -> list[float]:
        """Return the sums over all processes, as floats, of a list of numbers."""
        return self._reduced(values, "SUM")

    def min(self, value: float) -> float:
        """Return the smallest of all processes' numbers."""
        return self._reduced([value], "MIN")[0]

    def gather(self, item: Any) -> list[Any] | None:
        """Return every process's `item`, in the order of ranks, in the main process; None in the others."""
        if self.size == 1:
            return [item]
        items = [None] * self.size if self.is_main else None
        distributed.gather_object(item, items)
        return items

    def broadcast(self, item: Any) -> Any:
        """Return the main process's `item` in every process."""
        items = [item]
        if self.size > 1:
            distributed.broadcast_object_list(items)
        return items[0]

    def broadcast_state(self, model: nn.Module) -> nn.Module:
        """Give the model, on the CPU, the main process's parameters, buffers and quantizers' limits, in place."""
        if self.size > 1:
            state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            for tensor in state.values():
                distributed.broadcast(tensor, src=0)
            model.load_state_dict(state)
        return model

    def shard(self, batches: Any) -> Any:
        """Return `batches` with this process's images of each batch alone; see `Batches.part`."""
        return batches if self.size == 1 else batches.part(self.rank, self.size)

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            distributed.barrier()

    def _reduced(self, values: Iterable[float], how: str) -> list[float]:
        if self.size == 1:
            return [float(value) for value in values]
        total = torch.tensor(list(values), dtype=torch.float64)
        distributed.all_reduce(total, getattr(distributed.ReduceOp, how))
        return total.tolist()


def current_world() -> World:
    """Return the `World` of this process: those inside of `init_distributed`, or one alone."""
    if distributed.is_available() and distributed.is_initialized():
        return World(distributed.get_rank(), distributed.get_world_size())
    return World()


@contextmanager
def init_distributed(device: str = "cpu", *, timeout: int = 600) -> Iterator[World]:
    """Yield the `World` of the processes that torchrun started; one alone without torchrun.

    `device`: "cpu", or "cuda" for a GPU each. `timeout`: seconds to wait for the others. Raises ConnectionError, in one
    line, where they cannot be reached any more, ValueError where there are too few devices.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield World()
        return
    rank = int(os.environ["RANK"])
    if device != "cpu":
        if device != "cuda":
            raise ValueError(f"device must be cpu or cuda (a GPU for each process) under torchrun, got {device}")
        local, here = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local >= here:
            raise ValueError(
                f"torchrun started process {local + 1} on a machine with {here} GPUs: lower --nproc-per-node"
            )
        torch.cuda.set_device(local)
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    try:
        distributed.init_process_group(backend, timeout=timedelta(seconds=timeout))
        yield current_world()
        distributed.destroy_process_group()
    except RuntimeError as error:
        if not is_lost_connection(error):
            raise
        words = f"lost the others: one has ended or has not answered for {timeout} s; what ended it stands with its messages"
        raise ConnectionError(f"process {rank} of {size} {words} ({str(error).splitlines()[0][:200]})") from error


def is_lost_connection(error: RuntimeError) -> bool:
    """Return whether an error comes from the connection to other processes, and not from a mistake in the code."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


class SyncedBatchNorm2d(nn.SyncBatchNorm, nn.BatchNorm2d):
    """Torch's synced batch norm, which stays a BatchNorm2d to those that look for one."""

    process_group = None  # all processes


SYNCED: dict[str, type[nn.BatchNorm2d]] = {"cuda": SyncedBatchNorm2d}  # by device; torch has none for the CPU


@contextmanager
def data_parallel(model: nn.Module, world: World, *, sync_bn: bool = True) -> Iterator[nn.Module]:
    """Yield what to call in place of `model` while it trains, so that all have the gradient of the mean of theirs.

    `sync_bn`: batch norm sees the images of all processes; otherwise each its own, and the main process's running
    statistics are the ones that count.
    """
    if world.size == 1:
        yield model
        return
    kind = SYNCED.get(next(model.parameters()).device.type)
    if sync_bn and kind is None and world.is_main:
        log.warning("batch norm takes each process's own share of a batch: torch syncs it on GPUs alone")
    with warnings.catch_warnings(), synced_bn(model, kind) if sync_bn and kind else nullcontext():
        warnings.filterwarnings(
            "ignore", message="Grad strides do not match"
        )  # of 1 x 1 convolutions, where all are equal
        yield nn.parallel.DistributedDataParallel(model)  # before each forward all take the main process's buffers


@contextmanager
def synced_bn(model: nn.Module, kind: type[nn.BatchNorm2d]) -> Iterator[nn.Module]:
    """Turn the model's BatchNorm2d into `kind` within the block: the same modules, parameters and buffers."""
    norms = [module for module in model.modules() if type(module) is nn.BatchNorm2d]
    for norm in norms:
        norm.__class__ = kind
    try:
        yield model
    finally:
        for norm in norms:
            norm.__class__ = nn.BatchNorm2d


class MicroBatch:
    """Some images of a batch, `share` of all processes' (0..1); `totals`: the matches at each level, where known beforehand."""

    def __init__(self, batch: Batch, share: float, totals: list[float] | None = None, world: World | None = None):
        self.batch, self.share, self.totals, self.world = batch, share, totals, world or World()

    def matches(self, own: Sequence[float]) -> list[float]:
        """Return each level's divisor: the whole batch's matches x share, or those that all processes have in hand x share."""
        if self.totals is not None:
            return [count * self.share for count in self.totals]
        here = len(self.batch.images)
        *counts, images = self.world.sum([*own, here])
        return [count * (here / images) for count in counts]


def micro_batches(batch: Batch, count: int, *, loss: Any, world: World) -> list[MicroBatch]:
    """Split this process's `batch` into `count` micro-batches, or fewer where it has fewer images.

    `world`: the processes that share the whole batch, all of which take equally many. `loss` may say how many matches
    targets have before any output is known (`match_counts`). Where it cannot (YOLOv7's optimal transport), those of
    `count` > 1 micro-batches are averaged over each round's own matches, as the official training does.
    """
    here = len(batch.images)
    count = count if count == 1 else int(min(count, world.min(here)))
    whole = world.sum([here])[0]
    known = getattr(loss, "match_counts", None) if count > 1 else None
    totals = world.sum(known(batch.targets, batch.images.shape[-2:])) if known else None
    return [MicroBatch(part, len(part.images) / whole, totals, world) for part in split(batch, count)]


def split(batch: Batch, count: int) -> list[Batch]:
    """Split a batch into `count` of its kind, of equally many images or one more, in order."""
    if count == 1:
        return [batch]
    parts = []
    for numbers in np.array_split(np.arange(len(batch.images)), count):
        first, last, image = int(numbers[0]), int(numbers[-1]) + 1, batch.targets[:, 0]
        targets = batch.targets[(image >= first) & (image < last)].clone()
        targets[:, 0] -= first
        masks = None if batch.masks is None else batch.masks[first:last]
        parts.append(type(batch)(batch.images[first:last], targets, masks, batch.image_ids[first:last]))
    return parts
