"""Batches, against targets worked out by hand, and held to being a pure function of seed, epoch and position."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from oscillab.data.augment import Augment
from oscillab.data.batches import Batches
from oscillab.data.images import Sample
from oscillab.data.scenes import Scenes


class Pictures:
    """Wide grey pictures (32 x 64); number i has i objects."""

    fresh, name, names, category_ids = False, "pictures", ["thing"], [1]

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def sample(self, index):
        boxes = np.tile(np.float32([[8, 4, 24, 20]]), (index, 1))
        image = np.full((32, 64, 3), index, np.uint8)
        return Sample(image, boxes, np.zeros(index, np.int64), None, 100 + index)


def same(first, second):
    return torch.equal(first.images, second.images) and torch.equal(first.targets, second.targets)


def test_targets_and_epochs():
    """Oracle: by hand: 32 x 64 in 64 lies 16 lower, so 4..20 is 20..36. Invariant: epochs are other permutations."""
    (batch,) = Batches(Pictures(3), size=64, batch_size=4, shuffle=False).epoch(0)
    assert batch.images.shape == (3, 3, 64, 64) and batch.images.dtype == torch.uint8
    assert batch.images[2, 0, 32, 5] == 2 and batch.images[2, 0, 3, 5] == 114
    assert batch.image_ids == [100, 101, 102]
    row = [0, 16 / 64, 28 / 64, 16 / 64, 16 / 64]
    assert batch.targets.tolist() == [[1, *row], [2, *row], [2, *row]]
    (bare,) = Batches(Pictures(1), size=64, batch_size=1).epoch(0)
    assert bare.targets.shape == (0, 6)
    batches = Batches(Pictures(10), size=64, batch_size=4)
    orders = [[number for batch in batches.epoch(epoch) for number in batch.image_ids] for epoch in (0, 1)]
    assert len(batches) == 3 and sorted(orders[0]) == sorted(orders[1]) == list(range(100, 110))
    assert orders[0] != orders[1]
    assert len(list(Batches(Pictures(10), size=64, batch_size=4, drop_last=True).epoch(0))) == 2
    scenes = Scenes(4, split="train", masks=False)
    ids = [next(Batches(scenes, size=160, batch_size=4).epoch(epoch)).image_ids for epoch in (0, 1, 5)]
    assert [sorted(chosen) for chosen in ids] == [[0, 1, 2, 3], [4, 5, 6, 7], [20, 21, 22, 23]]


@pytest.mark.parametrize("augment", [None, Augment()])
def test_resuming_within_an_epoch_gives_the_same_batches(augment):
    """Invariant: epoch 2 from batch 1 on equals the tail of epoch 2, also from an object made anew."""
    scenes = Scenes(6, split="train", masks=False)
    whole = list(Batches(scenes, size=160, batch_size=2, seed=3, augment=augment).epoch(2))
    rest = list(Batches(scenes, size=160, batch_size=2, seed=3, augment=augment).epoch(2, start=1))
    assert len(rest) == 2
    assert all(same(first, second) for first, second in zip(whole[1:], rest, strict=True))
    other = list(Batches(scenes, size=160, batch_size=2, seed=4, augment=augment).epoch(2))
    assert not all(same(first, second) for first, second in zip(whole, other, strict=True))


def test_workers_and_masks():
    """Invariant: the number of processes does not show. Oracle: each target is its tight mask's bounding box."""
    settings = {"size": 160, "batch_size": 2, "augment": Augment(), "masks": True}
    alone = list(Batches(Scenes(6), **settings).epoch(1))
    shared = list(Batches(Scenes(6), workers=2, **settings).epoch(1))
    for first, second in zip(alone, shared, strict=True):
        assert same(first, second) and first.image_ids == second.image_ids
        assert all(torch.equal(a, b) for a, b in zip(first.masks, second.masks, strict=True))
    batch, planes = alone[0], torch.cat(alone[0].masks)
    assert len(planes) == len(batch.targets)
    for plane, (_, _, x, y, width, height) in zip(planes, (batch.targets * 160).tolist(), strict=True):
        rows, columns = plane.any(1).nonzero().flatten().tolist(), plane.any(0).nonzero().flatten().tolist()
        assert x - width / 2 == pytest.approx(columns[0], abs=1e-3)
        assert y + height / 2 == pytest.approx(rows[-1] + 1, abs=1e-3)


def of(given, batch_size=4, **settings):
    data = Pictures(given) if isinstance(given, int) else given
    return Batches(data, **({"size": 64, "batch_size": batch_size} | settings))


NEEDED = "a data set, such as Scenes or CocoFolder, is needed, got a "


@pytest.mark.parametrize("call, message", [
    (lambda: of(0).epoch(0), "the data set pictures is empty"),
    (lambda: of(3, size=100), "size must be a multiple of 32 pixels, got 100"),
    (lambda: of(3, 0), "batch_size must be 1 or more, workers and seed 0 or more, got 0, 0 and 0"),
    (lambda: of(3, drop_last=True), "batch_size must be 1..3 with drop_last on this data set, got 4"),
    (lambda: of(3, workers=-1), "workers and seed 0 or more, got 4, -1 and 0"),
    (lambda: next(of(2, masks=True).epoch(0)), "open it with masks=True"),
    (lambda: of(of(3)), NEEDED + "Batches"),
    (lambda: of(DataLoader([1])), NEEDED + "Data"),
    (lambda: of([1]), NEEDED + "list"),
    (lambda: of("coco"), NEEDED + "str"),
    (lambda: iter(of(3)), r"batches are served by epoch: `batches.epoch\(0\)`"),
    (lambda: of(16, 8).part(0, 3), "batch_size must be a multiple of the 3 processes that share it, got 8"),
    (lambda: of(17, 8).part(0, 2), "the last of 3 batches has 1 images for 2 processes, each needs one: .* drop_last"),
    (lambda: of(3, 8).part(0, 4), "the last of 1 batches has 3 images for 4 processes"),
])  # fmt: skip
def test_what_is_refused(call, message):
    """Oracle: the sentence; without the last batch the 17 pictures can be shared."""
    with pytest.raises(ValueError, match=message):
        call()
    assert len(of(17, 8, drop_last=True).part(1, 2)) == 2


@pytest.mark.parametrize("count", [2, 4])
def test_parts_are_together_the_very_batch(count):
    """Oracle: the whole batch, the short last one too: pictures in order, and the targets of each picture."""
    whole = Batches(Pictures(20), size=64, batch_size=8)
    parts = [whole.part(rank, count) for rank in range(count)]
    assert all(len(part) == len(whole) == 3 for part in parts)
    for position in range(3):
        batch, shares = whole.batch(1, position), [part.batch(1, position) for part in parts]
        assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
        assert [number for share in shares for number in share.image_ids] == batch.image_ids
        assert torch.equal(torch.cat([share.targets[:, 1:] for share in shares]), batch.targets[:, 1:])
        assert all(share.targets[:, 0].max() < len(share.images) for share in shares if len(share.targets))
        assert max(len(share.images) for share in shares) - min(len(share.images) for share in shares) <= 1
