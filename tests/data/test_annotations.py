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


def test_a_good_file_is_read_as_it_is(file, caplog):
    assert read_annotations(file(content() | {"info": {"year": 2017}})) == content() | {"info": {"year": 2017}}
    assert not caplog.records


def test_clipping_by_hand():
    """Oracle: by hand, in a picture of 50 columns and 40 rows."""
    image = {"height": 40, "width": 50}
    assert clip_box([-3, 30, 10, 20], image) == [0, 30, 7, 40]
    assert clip_box([60, 5, 10, 10], image) == [50, 5, 50, 15]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("{'images': [", "instances_val2017.json is not JSON: Expecting property name"),
        ("[1, 2]", "must hold a dictionary in COCO's format, got a list"),
        ("{}", "lacks the list 'images'"),
        (content() | {"images": []}, "is empty: it must list one image or more"),
        (changed("annotations", 0, image_id=77), "1 annotations point at images that it does not list, .* image_id 77"),
        (changed("annotations", 1, category_id=2), "1 annotations point at categories .* category_id 2"),
        (changed("annotations", 1, bbox=[1, 2, 3]), r"a box must be 4 finite numbers, image 8 has \[1, 2, 3\]"),
        (changed("annotations", 1, bbox=[1, 2, 3, float("nan")]), "a box must be 4 finite numbers"),
        (changed("images", 1, id=5), "lists 1 images twice"),
        (content() | {"categories": [{"id": 9}]}, "entry 0 of 'categories' lacks name"),
    ],
)
def test_a_bad_annotation_file_is_refused(file, broken, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_annotations(file(broken))
    assert "\n" not in str(caught.value)


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
