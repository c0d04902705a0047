"""How does a batch that passes through the network in portions give the gradient of the whole?

Portions lie side by side in several processes, one after another in one (gradient accumulation), or both. The gradients
add up to the whole batch's if each loss is its share of the whole's. What stands in the way is that errors of matched
predictions are averaged over the matches, so that a portion with few objects would count as much as one with many: every
portion has to divide by the whole batch's matches.
"""

import numpy as np


class Portion:
    """Some pictures of a batch; `share` of them, 0 to 1, adds up to 1 over all portions of all processes."""

    def __init__(self, batch, share, count_matches):
        self.batch, self.share, self._count_matches = batch, share, count_matches

    def matches(self, own):
        """What errors are averaged over at each level, a list of floats, where this portion has `own` matches (a list).

        The whole batch's matches, in proportion to the share of the pictures.
        """
        counts, share = self._count_matches(own)
        return [count * share for count in counts]


def portions(batch, count, *, loss, members):
    """The `Portion`s of this process's `batch` when it is taken in `count` of them, or fewer where it has fewer pictures.

    `members`: the `Group` that shares the whole batch, in which all take equally many portions. `loss` may say how many
    matches targets have before any output is known (`match_counts`). Where it cannot (YOLOv7's optimal transport), those
    of `count` > 1 portions are averaged over each round's own matches, as the official training does.
    """
    here = len(batch.images)
    count = count if count == 1 else int(min(count, members.least(here)))
    whole = members.total([here])[0]
    known = getattr(loss, "match_counts", None) if count > 1 else None
    totals = members.total(known(batch.targets, batch.images.shape[-2:])) if known else None
    result = []
    for part in split(batch, count):
        share = len(part.images) / whole
        result.append(Portion(part, share, _counter(len(part.images), share, totals, members)))
    return result


def _counter(pictures, share, totals, members):
    """A function from a portion's own matches to those of all, and its share of the pictures that these are from."""

    def of_whole(own):
        return totals, share

    def of_round(own):
        *counts, whole = members.total([*own, pictures])
        return counts, pictures / whole

    return of_round if totals is None else of_whole


def split(batch, count):
    """The `Batch` in `count` of its kind, of equally many pictures or one more, in order."""
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
