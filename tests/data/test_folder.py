"""A data set written as a folder and opened again: the pictures, boxes and masks that it was written from."""

import numpy as np
import pytest

from oscillab.data.dataset import CocoFolder
from oscillab.data.folder import write_folder
from oscillab.data.scenes import Scenes


def test_what_is_written_comes_back(tmp_path):
    """Oracle: the data set that was written: PNG loses nothing, and run lengths are exact."""
    scenes = Scenes(5, split="train", seed=3, size=96)
    path = write_folder(scenes, tmp_path / "mine", "train2017")
    assert path == tmp_path / "mine" / "annotations" / "instances_train2017.json"
    found = CocoFolder(tmp_path / "mine", "train2017", masks=True)
    assert (len(found), found.names, found.category_ids) == (5, scenes.names, scenes.category_ids)
    for index in range(5):
        given, read = scenes.sample(index), found.sample(index)
        for name in ("image", "boxes", "labels", "masks"):
            assert np.array_equal(getattr(given, name), getattr(read, name)), name
    assert found.ground_truth()["annotations"] == scenes.ground_truth()["annotations"]


def test_two_splits_share_a_folder_and_boxes_may_come_without_masks(tmp_path):
    """Oracle: both open; a network that segments is refused where nothing was drawn."""
    write_folder(Scenes(3, split="train", size=64, masks=False), tmp_path, "train2017")
    write_folder(Scenes(2, split="val", size=64), tmp_path, "val2017")
    assert [len(CocoFolder(tmp_path, split)) for split in ("train2017", "val2017")] == [3, 2]
    with pytest.raises(ValueError, match="have no 'segmentation'"):
        CocoFolder(tmp_path, "train2017", masks=True)
