"""Annotation files: what is read from a good one, and the one line that each bad one gets."""

import json
import logging

import pytest

from oscillab.data.annotations import clip_box, read_annotations


def content():
    """Two pictures, two boxes, one class: a file that nothing is wrong with."""
    return {
        "images": [
            {"id": 5, "file_name": "a.png", "height": 40, "width": 50},
            {"id": 8, "file_name": "b.png", "height": 16, "width": 16},
        ],
        "annotations": [
            {"image_id": 5, "category_id": 9, "bbox": [10, 5, 20, 20]},
            {"image_id": 8, "category_id": 9, "bbox": [1, 2, 3.5, 4]},
        ],
        "categories": [{"id": 9, "name": "kite"}],
    }


def changed(part, number, **fields):
    """The content with fields of one entry changed."""
    whole = content()
    whole[part][number] |= fields
    return whole


@pytest.fixture
def file(tmp_path):
    """Writes a text, or content as JSON, and returns the file's path."""

    def write(what):
        path = tmp_path / "instances_val2017.json"
        path.write_text(what if isinstance(what, str) else json.dumps(what))
        return path

    return write


def test_a_good_file_is_read_with_its_defaults(file, caplog):
    """Oracle: what was written, with COCO's defaults where a value is absent or null: no crowd, the box's area, no mask."""
    whole = changed("annotations", 1, iscrowd=None, area=None, segmentation=None, id=None) | {"info": {"year": 2017}}
    found = read_annotations(file(whole))
    added = [{"iscrowd": 0, "area": 400}, {"iscrowd": 0, "area": 14.0, "id": None}]
    assert found["annotations"] == [a | b for a, b in zip(content()["annotations"], added, strict=True)]
    assert {part: found[part] for part in ("images", "categories", "info")} == {
        part: whole[part] for part in ("images", "categories", "info")
    }
    assert not caplog.records


def test_clipping_by_hand():
    """Oracle: by hand, in a picture of 50 columns and 40 rows."""
    image = {"height": 40, "width": 50}
    assert clip_box([-3, 30, 10, 20], image) == [0, 30, 7, 40]
    assert clip_box([60, 5, 10, 10], image) == [50, 5, 50, 15]


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
    (changed("annotations", 0, image_id=[5]), r"image_id of entry 0 of 'annotations' must be a whole number or text, got \[5\]"),
    (changed("annotations", 1, bbox=[1, 2, 3]), r"bbox of entry 1 of 'annotations' \(image 8\) must be 4 finite numbers, got"),
    (changed("annotations", 1, bbox=[1, 2, 3, float("nan")]), "bbox of .* must be 4 finite numbers"),
    (changed("annotations", 1, bbox=[1, 2, 3, 10**400]), "bbox of .* must be 4 finite numbers"),
    (changed("annotations", 1, bbox=[1, 2, True, 3]), "bbox of .* must be 4 finite numbers"),
    (changed("annotations", 0, iscrowd="0"), "iscrowd of .* must be 0 or 1, got '0'"),
    (changed("annotations", 0, area="large"), "area of .* must be a number of 0 or more, got 'large'"),
    (changed("annotations", 0, area=-1), "area of .* must be a number of 0 or more, got -1"),
    (changed("images", 0, width=None), r"width of entry 0 of 'images' \(file 'a.png', id 5\) must be a whole number of pixels"),
    (changed("images", 0, height=40.5), "height of .* must be a whole number of pixels"),
    (changed("images", 0, file_name=7), "file_name of .* must be text, a path of names of 255 bytes at most, got 7"),
    (changed("images", 1, id=5), "1 ids of 'images' occur twice, the first is 5"),
    (changed("images", 1, id="8"), "the ids of 'images' must be all numbers or all text"),
    (content() | {"categories": [{"id": 9, "name": "kite"}, {"id": 9, "name": "cup"}]}, "1 ids of 'categories' occur twice"),
    (content() | {"categories": [{"id": 9, "name": "kite"}, {"id": 4, "name": "kite"}]}, "1 names of 'categories' .* 'kite'"),
    (content() | {"annotations": [a | {"id": 3} for a in content()["annotations"]]}, "1 ids of 'annotations' occur twice"),
    (segmentation([10, 5, 30, 5, 10, 25]), r"segmentation of entry 0 .*image 5.* must be polygons, lists of 6 or more numbers"),
    (segmentation([[10, 5, 30, 5]]), "must be polygons, lists of 6 or more numbers"),
    (segmentation([[10, 5, 30, 5, 10]]), "must be polygons, lists of 6 or more numbers"),
    (segmentation([[10, 5, 30, 5, 10, "25"]]), "must be polygons, lists of 6 or more numbers"),
    (segmentation([[10, 5, 10**6, 5, 10, 25]]), "x, y, x, y, … within ±65535"),
    (segmentation({"size": [40, 50], "counts": "o"}), "compressed run lengths that are no numbers of 1 to 7"),
    (segmentation({"size": [40, 50], "counts": "`n0"}), "run lengths that must add up to 2000 pixels, got"),
    (segmentation("mask"), r"must be a list of polygons or run lengths with size \[height, width\] and counts, got 'mask'"),
    (segmentation({"counts": [2000]}), "must be a list of polygons or run lengths"),
    (segmentation({"size": [50, 40], "counts": [2000]}), r"has size \[50, 40\], its image has .* \[40, 50\]"),
    (segmentation({"size": [40, 50], "counts": [1999]}), "run lengths that must add up to 2000 pixels, got 1999"),
    (segmentation({"size": [40, 50], "counts": [-1, 2001]}), "has counts that must be a string, or a list of whole"),
    (segmentation({"size": [40, 50]}), "has counts that must be a string, or a list of whole numbers"),
    (segmentation({"size": [40, 50], "counts": "~~"}), "has compressed run lengths that are no numbers of 1 to 7"),
    (segmentation({"size": [40, 50], "counts": "o" * 10_000}), "compressed run lengths that are no numbers of 1 to 7"),
    (segmentation({"size": [40_000, 50_000], "counts": [2 * 10**9]}), "which is more than 1073741824 pixels"),
])  # fmt: skip
def test_a_bad_annotation_file_is_refused(file, broken, message):
    """Oracle: one line that names the file, the entry with its image, what was given and what is allowed."""
    with pytest.raises(ValueError, match=message) as caught:
        read_annotations(file(broken))
    assert "\n" not in str(caught.value) and "instances_val2017.json" in str(caught.value)


def test_up_to_ten_faults_are_told_at_once(file):
    """Oracle: counted; twelve boxes of text give ten of them and the number of the others."""
    entries = [content()["annotations"][0] | {"bbox": "box"} for _ in range(12)]
    with pytest.raises(ValueError, match=r"entry 9 of .* … and 2 more$") as caught:
        read_annotations(file(content() | {"annotations": entries}))
    assert str(caught.value).count("must be 4 finite numbers") == 10


def test_masks_of_a_shrunk_image_and_a_root_category(file, caplog):
    """Oracle: run lengths of twice the image's size are legal; Roboflow's root, a category without objects, is named."""
    whole = segmentation({"size": [80, 100], "counts": [8000]})
    whole["categories"] = [
        {"id": 0, "name": "toys", "supercategory": "none"},
        {"id": 9, "name": "kite", "supercategory": "toys"},
    ]
    assert read_annotations(file(whole))["annotations"][0]["segmentation"]["size"] == [80, 100]
    (text,) = (record.getMessage() for record in caplog.records)
    assert "the category 'toys' has no object and is above others" in text


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no annotation file .*instances_train2017.json"):
        read_annotations(tmp_path / "instances_train2017.json")


def test_boxes_outside_are_clipped_or_left_out_with_a_warning(file, caplog):
    """Oracle: by hand; x from 45 to 65 in 50 columns keeps 5, a box beyond the edge or of no width is left out.

    Four tenths of a pixel beyond the edge are rounding, and stay as they are.
    """
    boxes = [[45, 10, 20, 10], [60, 5, 10, 10], [3, 3, 0, 5], [-0.4, 2, 10, 10], [1, 1, 5, 5]]
    annotations = [{"image_id": 5, "category_id": 9, "bbox": box} for box in boxes]
    with caplog.at_level(logging.WARNING):
        kept = read_annotations(file(content() | {"annotations": annotations}))["annotations"]
    assert [entry["bbox"] for entry in kept] == [[45, 10, 5, 10], [-0.4, 2, 10, 10], [1, 1, 5, 5]]
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert "1 boxes stand over their image's edge" in texts[0]
    assert "left out 2 boxes without area in their image, the first [60, 5, 10, 10] in image 5" in texts[1]
