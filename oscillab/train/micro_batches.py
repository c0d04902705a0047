"""Split a batch into micro-batches whose gradients add up to the whole batch's.

Micro-batches lie side by side in several processes, one after another in one (gradient accumulation), or both. Their
gradients add up if each loss is its share of the whole's. What stands in the way is that errors of matched predictions are
averaged over the matches, so that a micro-batch with few objects would count as much as one with many: each has to divide
by the whole batch's matches.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from oscillab.data.batches import Batch
from oscillab.train.ddp import World


class MicroBatch:
    """Some images of a batch; `share` of them, 0 to 1, adds up to 1 over all micro-batches of all processes."""

    def __init__(
        self, batch: Batch, share: float, count_matches: Callable[[Sequence[float]], tuple[list[float], float]]
    ):
        self.batch, self.share, self._count_matches = batch, share, count_matches

    def matches(self, own: Sequence[float]) -> list[float]:
        """Return what errors are averaged over at each level, where this micro-batch has `own` matches.

        It is the whole batch's matches, in proportion to the share of the images.
        """
        counts, share = self._count_matches(own)
        return [count * share for count in counts]


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
    parts = split(batch, count)
    shares = [len(part.images) / whole for part in parts]
    return [
        MicroBatch(part, share, _counter(len(part.images), share, totals, world))
        for part, share in zip(parts, shares, strict=True)
    ]


def _counter(images: int, share: float, totals: list[float] | None, world: World) -> Callable[..., Any]:
    """Return a function from a micro-batch's own matches to those of all, and its share of the images these are from."""

    def of_whole(own: Sequence[float]) -> tuple[list[float], float]:
        return totals or [], share

    def of_round(own: Sequence[float]) -> tuple[list[float], float]:
        *counts, whole = world.sum([*own, images])
        return counts, images / whole

    return of_round if totals is None else of_whole


def split(batch: Batch, count: int) -> list[Batch]:
    """Split a batch into `count` of its kind, of equally many images or one more, in order."""
    if count == 1:
        return [batch]
    parts = []
    for numbers in np.array_split(np.arange(len(batch.images)), count):
        first, last = int(numbers[0]), int(numbers[-1]) + 1
        image = batch.targets[:, 0]
        targets = batch.targets[(image >= first) & (image < last)].clone()
        targets[:, 0] -= first
        masks = None if batch.masks is None else batch.masks[first:last]
        parts.append(type(batch)(batch.images[first:last], targets, masks, batch.image_ids[first:last]))
    return parts
