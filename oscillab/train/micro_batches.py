"""Split a batch into micro-batches whose gradients add up to the whole batch's.

Micro-batches lie side by side in several processes, one after another in one (gradient accumulation), or both. Their
gradients add up if each loss is its share of the whole's. What stands in the way is that errors of matched predictions are
averaged over the matches, so that a micro-batch with few objects would count as much as one with many: each has to divide
by the whole batch's matches.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from oscillab.data.batches import Batch
from oscillab.train.ddp import World


class MicroBatch:
    """Some images of a batch; `share` of them, 0 to 1, adds up to 1 over all micro-batches of all processes.

    `totals`: the whole batch's matches at each level, where they are known before the outputs are.
    """

    def __init__(self, batch: Batch, share: float, totals: list[float] | None = None, world: World | None = None):
        self.batch, self.share, self.totals, self.world = batch, share, totals, world or World()

    def matches(self, own: Sequence[float]) -> list[float]:
        """Return what errors are averaged over at each level, where this micro-batch has `own` matches.

        It is the whole batch's matches, in proportion to the share of the images. Where they are not known, it is those of
        the micro-batches that all processes have in hand.
        """
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
        first, last = int(numbers[0]), int(numbers[-1]) + 1
        image = batch.targets[:, 0]
        targets = batch.targets[(image >= first) & (image < last)].clone()
        targets[:, 0] -= first
        masks = None if batch.masks is None else batch.masks[first:last]
        parts.append(type(batch)(batch.images[first:last], targets, masks, batch.image_ids[first:last]))
    return parts
