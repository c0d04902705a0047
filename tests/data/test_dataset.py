"""COCO-format folders: a small one made here and read back, the real one, and the one line for each that is wrong."""

import json
import logging
import pickle

import cv2
import numpy as np
import pytest
from pycocotools import mask as reference

import oscillab
from oscillab.data.annotations import read_annotations
from oscillab.data.dataset import CocoFolder, open_dataset
from oscillab.data.images import encode_runs
from oscillab.data.options import chosen_size, joined_classes
from oscillab.data.scenes import Scenes
from oscillab.provenance import SHIPPED

TRIANGLE = [[10, 5, 30, 5, 10, 25]]


def content():
    """A picture (40 rows, 50 columns) with a triangle, a crowd and an object in run lengths; one without anything."""
    crowd = np.zeros((80, 100), np.uint8)  # twice the picture's size, as where pictures were shrunk and crowds were not
    crowd[60:80, 0:40] = 1
    small = np.zeros((40, 50), np.uint8)
    small[30:34, 40:46] = 1
    common = {"image_id": 5, "category_id": 9}
    first = {"id": 5, "file_name": "a.png", "height": 40, "width": 50}
    annotations = [
        {**common, "id": 1, "bbox": [10, 5, 20, 20], "area": 200, "iscrowd": 0, "segmentation": TRIANGLE},
        {**common, "id": 2, "bbox": [0, 30, 20, 10], "area": 200, "iscrowd": 1, "segmentation": encode_runs(crowd)},
        {**common, "id": 3, "category_id": 4, "bbox": [40, 30, 6, 4], "segmentation": encode_runs(small)},
    ]
    images = [first, {"id": 8, "file_name": "b.png", "height": 16, "width": 16}]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 9, "name": "kite"}, {"id": 4, "name": "cup"}],
    }


@pytest.fixture
def folder(tmp_path):
    """Writes `content` (or another) as a COCO-format folder, split "val2017", and returns its path."""

    def write(whole=None):
        pictures = tmp_path / "images" / "val2017"
        pictures.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(pictures / "a.png"), np.full((40, 50, 3), (10, 20, 30), np.uint8))  # blue, green, red
        cv2.imwrite(str(pictures / "b.png"), np.zeros((16, 16, 3), np.uint8))
        annotations = tmp_path / "annotations" / "instances_val2017.json"
        annotations.parent.mkdir(exist_ok=True)
        annotations.write_text(whole if isinstance(whole, str) else json.dumps(whole or content()))
        return tmp_path

    return write


def changed(part, number, **fields):
    whole = content()
    whole[part][number] |= fields
    return whole


def read(folder, whole):
    return read_annotations(folder(whole) / "annotations" / "instances_val2017.json")


def test_a_good_file_is_read_with_its_defaults(folder, caplog):
    """Oracle: what was written, with COCO's defaults; ten of twelve faults; runs of twice the size; a root named."""
    whole = changed("annotations", 2, iscrowd=None, area=None, segmentation=None, id=None)
    whole |= {"info": 7, "licenses": None, "type": ["any"]}  # which nobody reads
    whole["categories"][0]["supercategory"] = None
    expected = content()["annotations"]
    expected[2] = {"image_id": 5, "category_id": 4, "bbox": [40, 30, 6, 4], "id": None, "iscrowd": 0, "area": 24}
    assert read(folder, whole) == whole | {"annotations": expected}
    assert not caplog.records
    entries = [content()["annotations"][0] | {"bbox": "box"} for _ in range(12)]
    with pytest.raises(ValueError, match=r"entry 9 of .* … and 2 more$") as caught:
        read(folder, content() | {"annotations": entries})
    assert str(caught.value).count("must be 4 finite numbers") == 10
    whole = segmentation({"size": [80, 100], "counts": [8000]})
    root = {"id": 0, "name": "toys", "supercategory": "none"}
    whole["categories"] = [root, {"id": 9, "name": "kite", "supercategory": "toys"}, {"id": 4, "name": "cup"}]
    assert read(folder, whole)["annotations"][0]["segmentation"]["size"] == [80, 100]
    (text,) = (record.getMessage() for record in caplog.records)
    assert "the category 'toys' has no object and is above others" in text


def segmentation(given):
    """The content with a segmentation in the first annotation, whose image has 40 rows and 50 columns."""
    return changed("annotations", 0, segmentation=given)


@pytest.mark.parametrize(("broken", "message"), [
    ("{'images': [", "instances_val2017.json is not JSON: Expecting property name"),
    ("[" * 100_000, "is not JSON: maximum recursion depth"),
    ("[1, 2]", "must hold a dictionary in COCO's format, got a list"),
    ("{}", "lacks the list 'images'"),
    (content() | {"images": []}, "is empty: it must list one image or more"),
    (content() | {"categories": [{"id": 9}]}, "entry 0 of 'categories' lacks name"),
    (content() | {"annotations": [3]}, "entry 0 of 'annotations' must be a dictionary, got 3"),
    (changed("annotations", 0, image_id=77), "1 annotations point at images that it does not list, .* image_id 77"),
    (changed("annotations", 1, category_id=2), "1 annotations point at categories .* category_id 2"),
    (changed("annotations", 0, image_id=[5]), r"image_id of entry 0 .* must be a whole number or text, got \[5\]"),
    (changed("annotations", 1, bbox=[1, 2, 3]), r"bbox of entry 1 of 'annotations' \(image 5, id 2\) must be 4 finite"),
    *[(changed("annotations", 1, bbox=[1, 2, odd, 3]), "bbox of .* 4 finite") for odd in (np.nan, 10**400, True)],
    (changed("annotations", 0, iscrowd="0"), "iscrowd of .* must be 0 or 1, got '0'"),
    *[(changed("annotations", 0, area=odd), f"area of .* a number of 0 or more, got {odd!r}") for odd in ("large", -1)],
    (changed("images", 0, width=None), r"width of entry 0 of 'images' \(file 'a.png', id 5\) must be a whole number of pixels"),
    *[(changed("images", 0, height=odd), "height of .* must be a whole number of pixels") for odd in (40.5, True)],
    *[(changed("images", 0, file_name=odd), f"must be text, .* of 255 bytes at most, got {odd}") for odd in (7, {})],
    (changed("images", 1, id=5), "1 ids of 'images' occur twice, the first is 5"),
    (changed("images", 1, id="8"), "the ids of 'images' must be all numbers or all text"),
    (content() | {"categories": [{"id": 9, "name": "kite"}, {"id": 9, "name": "cup"}]}, "1 ids of 'categories' occur twice"),
    (content() | {"categories": [{"id": 9, "name": "kite"}, {"id": 4, "name": "kite"}]}, "1 names of 'categories' .* 'kite'"),
    (content() | {"annotations": [a | {"id": 3} for a in content()["annotations"]]}, "1 ids of 'annotations' occur twice"),
    (segmentation([10, 5, 30, 5, 10, 25]), r"segmentation of entry 0 .*image 5.* must be polygons, lists of 6 or more numbers"),
    (segmentation([[10, 5, 30, 5]]), "must be polygons, lists of 6 or more numbers"),
    (segmentation([[10, 5, 10**6, 5, 10, 25]]), "x, y, x, y, … within ±65535"),
    *[(segmentation({"size": [40, 50], "counts": odd}), "has compressed run lengths that are no numbers of 1 to 7")
      for odd in ("o", "~~", "o" * 10_000)],
    (segmentation({"size": [40, 50], "counts": "`n0"}), "run lengths that must add up to 2000 pixels, got"),
    (content() | {"categories": [{"id": 9, "name": "kite", "supercategory": [1]}]}, r"supercategory of entry 0 .* text, got \[1\]"),
    (changed("annotations", 0, id=1.5), "id of .* must be a whole number or text, got 1.5"),
    *[(segmentation(odd), r"a list of polygons or run lengths with size \[height, width\] and counts, got " + got)
      for odd, got in (({}, "{}"), (0, "0"), ("mask", "'mask'"), ({"counts": [2000]}, ""))],
    (segmentation({"size": [50, 40], "counts": [2000]}), r"has size \[50, 40\], its image has .* \[40, 50\]"),
    *[(segmentation({"size": [40, 50]} | odd), "has counts that must be a string, or a list of whole numbers")
      for odd in ({}, {"counts": [-1, 2001]})],
    (segmentation({"size": [40_000, 50_000], "counts": [2 * 10**9]}), "which is more than 1073741824 pixels"),
])  # fmt: skip
def test_a_bad_annotation_file_is_refused(folder, broken, message):
    """Oracle: one line that names the file, the entry with its image, what was given and what is allowed."""
    with pytest.raises(ValueError, match=message) as caught:
        read(folder, broken)
    assert "\n" not in str(caught.value) and "instances_val2017.json" in str(caught.value)


def test_boxes_outside_are_clipped_or_left_out_with_a_warning(folder, caplog):
    """Oracle: by hand: 45 to 65 of 50 columns keeps 5, -3 to 7 keeps 7; 0.4 beyond is rounding; no area, no box."""
    boxes = [[45, 10, 20, 10], [60, 5, 10, 10], [3, 3, 0, 5], [-0.4, 2, 10, 10], [-3, 30, 10, 20]]
    annotations = [{"image_id": 5, "category_id": 9, "bbox": box} for box in boxes]
    with caplog.at_level(logging.WARNING):
        data = CocoFolder(folder(content() | {"annotations": annotations}))
    kept = [entry["bbox"] for entry in data.ground_truth()["annotations"]]
    assert kept == [[45, 10, 5, 10], [-0.4, 2, 10, 10], [0, 30, 7, 10]]
    np.testing.assert_allclose(data.sample(0).boxes, [[45, 10, 50, 20], [0, 2, 9.6, 12], [0, 30, 7, 40]], rtol=1e-6)
    first, second = (record.getMessage() for record in caplog.records)
    assert "2 boxes stand over their image's edge" in first
    assert "left out 2 boxes without area in their image, the first [60, 5, 10, 10] in image 5" in second


def test_a_folder_is_read_back(folder):
    """Oracle: what was written; a crowd's 20 x 40 at twice the size is pycocotools' 10 x 20; id '2' before '10'."""
    data = CocoFolder(folder(), masks=True)
    assert (len(data), data.names, data.category_ids, data.fresh) == (2, ["cup", "kite"], [4, 9], False)
    sample = data.sample(0)
    assert sample.image.shape == (40, 50, 3) and sample.image[0, 0].tolist() == [30, 20, 10]
    assert sample.boxes.tolist() == [[10, 5, 30, 25], [40, 30, 46, 34]]
    assert sample.labels.tolist() == [1, 0] and sample.image_id == 5
    assert sample.masks[0].sum() == pytest.approx(200, abs=15) and sample.masks[1].sum() == 24
    empty = data.sample(1)
    assert empty.boxes.shape == (0, 4) and empty.masks.shape == (0, 16, 16)
    _, crowd, last = data.ground_truth()["annotations"]
    mask = reference.decode(reference.frPyObjects(crowd["segmentation"], 40, 50))
    assert crowd["iscrowd"] and mask.shape == (40, 50) and mask.sum() == mask[30:40, 0:20].sum() == 200
    assert last["area"] == 24  # from its box: the file gave none
    whole = content() | {"categories": [{"id": "10", "name": "kite"}, {"id": "2", "name": "cup"}]}
    for entry in whole["annotations"]:
        entry["category_id"] = {9: "10", 4: "2"}[entry["category_id"]]
    data = CocoFolder(folder(whole))
    assert (data.category_ids, data.names, data.sample(0).labels.tolist()) == (["2", "10"], ["cup", "kite"], [1, 0])


def test_the_real_folder(shared, caplog):
    """Oracle: the counts of its README, and pycocotools' own masks of the same polygons, bit for bit."""
    data = open_dataset(str(shared / "coco"), "val", masks=True)
    assert (len(data), len(data.names), data.names[0], data.category_ids[-1]) == (188, 80, "person", 90)
    assert not caplog.records
    truth = data.ground_truth()
    assert sum(entry["iscrowd"] for entry in truth["annotations"]) == 20
    for index in range(25):
        sample = data.sample(index)
        entries = [e for e in truth["annotations"] if e["image_id"] == sample.image_id and not e["iscrowd"]]
        for mask, entry in zip(sample.masks, entries, strict=True):
            expected = reference.decode(reference.merge(reference.frPyObjects(entry["segmentation"], *mask.shape)))
            assert np.array_equal(mask, expected)


def test_missing_and_other_pictures_and_masks_are_refused(folder):
    """Oracle: the sentence with file, key and remedy; boxes alone open."""
    with pytest.raises(ValueError, match="lists 2 images, 1 of them are missing in .*, the first is c.png"):
        CocoFolder(folder(changed("images", 1, file_name="c.png")))
    root = folder()
    (root / "images" / "val2017" / "a.png").write_bytes(b"no picture")
    cv2.imwrite(str(root / "images" / "val2017" / "b.png"), np.zeros((20, 16, 3), np.uint8))
    data = CocoFolder(root)
    with pytest.raises(ValueError, match="a.png cannot be read"):
        data.sample(0)
    with pytest.raises(ValueError, match=r"b.png has \(20, 16\) rows and columns, its annotations say \(16, 16\)$"):
        data.sample(1)
    cv2.imwrite(str(root / "images" / "val2017" / "a.png"), np.zeros((50, 40, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a.png has \(50, 40\) .* \(40, 50\): its EXIF tag turns it; annotate it as"):
        data.sample(0)
    root = folder(changed("annotations", 0, segmentation=[]))
    message = r"instances_val2017.json: 1 objects have no 'segmentation', the first in image 5: give .* \(masks=False\)"
    with pytest.raises(ValueError, match=message):
        CocoFolder(root, masks=True)
    assert len(CocoFolder(root).sample(0).boxes)


def test_open_dataset_knows_scenes_and_folders(folder, tmp_path, caplog):
    """Oracle: type, split, the sentence; the size asked for, the detector's own, else 160 for scenes, 640 else."""
    scenes = open_dataset("scenes", "val2017", size=96, count=7)
    assert isinstance(scenes, Scenes) and (len(scenes), scenes.split, scenes.size) == (7, "val", 96)
    for opened, words in (
        (lambda: open_dataset("nowhere"), "no data set 'nowhere': give 'scenes' or the path"),
        (lambda: CocoFolder(tmp_path), "holds no data set: COCO's has annotations/instances_<split>.json"),
        (lambda: open_dataset(str(folder()), "train"), "has no split 'train'; it has val2017"),
        (lambda: CocoFolder(folder(), "train2017"), "has no split 'train2017'; it has val2017"),
    ):
        with pytest.raises(ValueError, match=words):
            opened()
    assert open_dataset(str(folder()), "val").split == "val2017"
    model = oscillab.build("yolov5n", classes=3)
    assert [chosen_size(0, data, model) for data in ("scenes", "folder")] == [160, 640]
    model.size = 320
    assert chosen_size(0, "folder", model) == 320 and not caplog.records
    assert chosen_size(96, "folder", model) == 96
    assert "was trained with images of 320 pixels and is given images of 96" in caplog.text


def test_what_is_written_comes_back_and_is_kept(tmp_path, folder, monkeypatch):
    """Oracle: the data set written, to the bit; counted readings, one a picture, with a byte less one a call."""
    scenes = Scenes(5, split="train", seed=3, size=96)
    path = CocoFolder.write(scenes, tmp_path / "mine", "train2017")
    assert path == tmp_path / "mine" / "annotations" / "instances_train2017.json"
    found = CocoFolder(tmp_path / "mine", "train2017", masks=True)
    assert (len(found), found.names, found.category_ids) == (5, scenes.names, scenes.category_ids)
    for index in range(5):
        given, read = scenes.sample(index), found.sample(index)
        for name in ("image", "boxes", "labels", "masks"):
            assert np.array_equal(getattr(given, name), getattr(read, name)), name
    assert found.ground_truth()["annotations"] == scenes.ground_truth()["annotations"]
    root = folder()
    size, readings = 3 * (40 * 50 + 16 * 16), []
    read = CocoFolder._read
    monkeypatch.setattr(CocoFolder, "_read", lambda self, image: readings.append(image["id"]) or read(self, image))
    kept, afresh = CocoFolder(root, cache_bytes=size), CocoFolder(root, cache_bytes=size - 1)
    for index in (0, 1, 0, 0):
        first, second = kept.sample(index), afresh.sample(index)
        assert np.array_equal(first.image, second.image) and np.array_equal(first.boxes, second.boxes)
    assert readings == [5, 5, 8, 8, 5, 5]
    with pytest.raises(ValueError, match="read-only"):
        kept.sample(0).image[:] = 0
    sent = pickle.dumps(kept)
    assert len(sent) < 6000 and np.array_equal(pickle.loads(sent).sample(0).image, kept.sample(0).image)


def test_classes_are_joined_by_name(tmp_path, caplog):
    """Oracle: the same scenes and names under ids in alphabetical order: every label and the mAP are the same."""
    scenes = Scenes(6, split="val", size=96)
    path = CocoFolder.write(scenes, tmp_path / "data", "val2017")
    content = json.loads(path.read_text())
    old = {category["id"]: category["name"] for category in content["categories"]}
    new = {name: number for number, name in enumerate(sorted(old.values()), start=1)}
    content["categories"] = [{"id": number, "name": name} for name, number in new.items()]
    for entry in content["annotations"]:
        entry["category_id"] = new[old[entry["category_id"]]]
    path.write_text(json.dumps(content))
    model, data = oscillab.load(SHIPPED), CocoFolder(tmp_path / "data")
    found = joined_classes(model, data, SHIPPED)
    assert found.names == list(model.names) and found.sample(0).labels.tolist() == scenes.sample(0).labels.tolist()
    expected = oscillab.evaluate(model, scenes, size=96)
    for dataset in (found, data):
        measured = oscillab.evaluate(model, dataset, size=96)
        assert measured.per_class == expected.per_class and expected.map > 0.3
        rows, others = np.concatenate(measured.detections), np.concatenate(expected.detections)
        assert [dataset.names[int(k)] for k in rows[:, 5]] == [model.names[int(k)] for k in others[:, 5]]
    content["categories"][3]["name"] = "kite"
    path.write_text(json.dumps(content))
    data = CocoFolder(tmp_path / "data")
    for refused in (lambda: joined_classes(model, data, SHIPPED), lambda: oscillab.evaluate(model, data)):
        with pytest.raises(ValueError, match="class 0 is 'disc' in .* and 'arrow' in data: take a checkpoint"):
            refused()
