"""Folders in YOLO's and Roboflow's layouts, converted: values by hand, and the one line for each that is wrong."""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from oscillab.__main__ import main
from oscillab.data.convert import class_names, convert
from oscillab.data.dataset import CocoFolder, open_dataset

YAML = "path: /of/another/machine\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"
BOX, POLYGON = "0 0.5 0.5 0.2 0.5", "1 0.1 0.1 0.4 0.1 0.1 0.6"


def write(root, files):
    """Write texts, and grey images of 40 rows and 100 columns where the name is an image's."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("g"):
            cv2.imwrite(str(root / name), np.full((40, 100, 3), 90, np.uint8))
        else:
            (root / name).write_text(text)
    return root


def yolo(root):
    """A data set of three images: a box and a polygon, an empty label file, none at all."""
    names = ("images/train/a.jpg", "images/train/deep/b.png", "images/val/c.jpg")
    files = dict.fromkeys(names, "") | {"data.yaml": YAML, "labels/train/a.txt": f"{BOX}\n{POLYGON}\n\n{BOX}\n"}
    files |= {"labels/train/deep/b.txt": "", "labels/val/c.txt": POLYGON}
    return write(root, files)


def test_yolos_boxes_and_polygons_by_hand(tmp_path):
    """Oracle: by hand: 0.5 ± 0.1 of 100, 0.5 ± 0.25 of 40; a triangle of half 30 x 20; a line twice counts once."""
    root, out = yolo(tmp_path / "yolo"), tmp_path / "deep" / "coco"
    convert(root, out)
    data = CocoFolder(out, "train")
    sample = data.sample(0)
    assert (len(data), data.names) == (2, ["cat", "dog"]) and data.sample(1).boxes.shape == (0, 4)
    np.testing.assert_allclose(sample.boxes, [[40, 10, 60, 30], [10, 4, 40, 24]], rtol=1e-6)
    assert sample.labels.tolist() == [0, 1] and sample.image.shape == (40, 100, 3)
    assert [round(entry["area"]) for entry in data.ground_truth()["annotations"]] == [400, 300]
    masks = open_dataset(str(out), "val", masks=True).sample(0).masks
    assert masks.sum() == pytest.approx(300, abs=20) and masks[0, 4:24, 10:40].sum() == masks.sum()
    assert not [path for path in out.rglob("*") if path.suffix in (".jpg", ".png")]
    names = {str(number): f"class {number}" for number in (10, 2, 0, 1, *range(3, 10))}
    assert class_names(Path("data.yaml"), {"names": names}) == [f"class {number}" for number in range(11)]


@pytest.mark.parametrize("changed", [
    {"data.yaml": YAML.replace("[cat, dog]", "{'1': dog, '0': cat}")},  # keys that are text, in another order
    {"data.yaml": YAML.replace("path: /of/another/machine", "")},
    {"data.yaml": YAML.replace("images/train", "[images/train, images/train/deep]") + "nc: 2\n"},  # one image twice
    {"data.yaml": YAML.replace("images/train", "train.txt"), "train.txt": "./images/train/a.jpg\nimages/train/deep/b.png\n"},
    {"data.yaml": YAML.replace("images/train", "../images/train") + "test: ../images/test"},  # as Roboflow writes it
    {"labels/train/a.txt": f"\ufeff{BOX}\r\n{POLYGON}".replace("0 0.5", "0.0\t0.5")},
])  # fmt: skip
def test_other_ways_of_saying_the_same(tmp_path, changed):
    """Oracle: the content of the plain one."""
    plain, other = (convert(yolo(tmp_path / name), tmp_path / name) for name in ("yolo", "other"))
    assert plain == other
    for path in (tmp_path / "other" / "annotations").iterdir():
        path.unlink()
    assert convert(write(tmp_path / "other", changed), tmp_path / "other") == plain


@pytest.mark.parametrize(("changed", "message"), [
    ({"labels/train/a.txt": f"{BOX}\n2 0.5 0.5 0.2 0.5"}, r"a.txt, line 2: class must be 0..1, as data.yaml names them, got 2"),
    ({"labels/train/a.txt": "0.5 0.5 0.5 0.2 0.5"}, "line 1: class must be 0..1, .* got 0.5"),
    ({"labels/train/a.txt": "0 0.5 0.5 0.2"}, "line 1: must be a class and 4 numbers, or .* three points or more, got 4 numbers"),
    ({"labels/train/a.txt": f"{BOX} 0.9"}, "got 6 numbers"),
    ({"labels/train/a.txt": "0 40 10 20 20"}, "must be fractions of the image, 0..1, got 40"),
    ({"labels/train/a.txt": "0 0.5 nan 0.2 0.5"}, "must be fractions of the image, 0..1, got nan"),
    ({"labels/train/a.txt": "cat 0.5 0.5 0.2 0.5"}, "must hold numbers alone, got 'cat 0.5"),
    ({"labels/train/a.txt": "7 7\n" * 3 + "8\n9\n" + "\n".join(map(str, range(10, 20)))}, "line 12: .* … and 3 more$"),
    ({"images/val/d.bmp": "no image"}, "d.bmp cannot be read as an image"),
    ({"data.yaml": "train: ["}, "data.yaml is not YAML: while parsing"),
    ({"data.yaml": "names: [cat, dog]"}, "must say where the images of train, val or test are"),
    ({"data.yaml": YAML.replace("images/val", "images/vall")}, "val is images/vall, which is no folder and no file"),
    ({"data.yaml": YAML.replace("images/val", "labels/val")}, "which holds no image"),
    ({"data.yaml": YAML.replace("images/val", "7")}, "path and val must be text"),
    ({"data.yaml": YAML.replace("dog", "no")}, "names must list the classes .* words such as yes, no need quotes"),
    ({"data.yaml": YAML.replace("[cat, dog]", "{1: cat, 2: dog}")}, "names must list the classes 0, 1, …"),
    ({"data.yaml": YAML.replace("dog", "cat")}, "1 names of 'categories' occur twice, the first is 'cat'"),
    ({"data.yaml": YAML + "nc: 3"}, "nc must be 2, as many as names lists, got 3"),
    ({"data.yaml": YAML + "kpt_shape: [17, 3]"}, r"describes key points \(kpt_shape\)"),
    ({"other.yaml": "", "data.yaml": None}, "has no data.yaml, which tells the classes' names"),
    ({"labels/val/c.txt": None}, "no image of val has a label file: the first would be .*labels/val/c.txt"),
])  # fmt: skip
def test_what_is_wrong_with_yolos(tmp_path, changed, message):
    """Oracle: one line that names file and line, what was given and what is allowed; nothing is written."""
    root, out = yolo(tmp_path / "yolo"), tmp_path / "coco"
    write(root, {name: text for name, text in changed.items() if text is not None})
    for name in (name for name, text in changed.items() if text is None):
        (root / name).unlink()
    if "other.yaml" in changed:
        (root / "third.yaml").write_text("")
    with pytest.raises(ValueError, match=message) as caught:
        convert(root, out)
    assert "\n" not in str(caught.value) and str(root) in str(caught.value) and not out.exists()


def roboflow(root):
    """Two splits of an image each; the category 0 stands above the two that have objects."""
    names = ("toys", "kite", "cup")
    categories = [{"id": n, "name": name, "supercategory": "toys" if n else "none"} for n, name in enumerate(names)]
    image = {"id": 0, "file_name": "a.jpg", "height": 40, "width": 100}
    objects = [{"id": 0, "image_id": 0, "category_id": 2, "bbox": [10, 4, 30, 20], "area": 600, "iscrowd": 0}]
    text = json.dumps({"images": [image], "categories": categories, "annotations": objects})
    splits = ("train", "valid")
    return write(root, {f"{split}/{name}": text for split in splits for name in ("a.jpg", "_annotations.coco.json")})


@pytest.mark.parametrize("place", ["coco", "roboflow"])
def test_roboflows_by_hand(tmp_path, caplog, place):
    """Oracle: what was written, without the category above; into another folder, and into its own, with no image copied."""
    root = roboflow(tmp_path / "roboflow")
    with caplog.at_level(logging.INFO):
        convert(root, tmp_path / place)
    assert "left out toys, which stands above the other categories" in caplog.text
    for split in ("train", "val"):
        data = CocoFolder(tmp_path / place, split)
        assert data.names == ["kite", "cup"] and data.sample(0).labels.tolist() == [1]
        assert data.sample(0).boxes.tolist() == [[10, 4, 40, 24]]
    assert len(list(tmp_path.rglob("*.jpg"))) == 2


def test_what_is_wrong_with_roboflows(tmp_path):
    """Oracle: the sentence of an annotation file, and the image that is missing."""
    root = roboflow(tmp_path / "roboflow")
    (root / "train" / "a.jpg").unlink()
    with pytest.raises(ValueError, match="train/_annotations.coco.json: lists .*train/a.jpg, which is missing"):
        convert(root, tmp_path / "coco")
    (root / "train" / "_annotations.coco.json").write_text("{}")
    with pytest.raises(ValueError, match="train/_annotations.coco.json: lacks the list 'images'"):
        convert(root, tmp_path / "coco")


@pytest.mark.parametrize(("make", "layout"), [(yolo, "YOLO's layout"), (roboflow, "Roboflow's layout")])
def test_the_command_that_the_refusal_names(tmp_path, make, layout, capsys):
    """Oracle: the layout's name and the command, which then works; a second time nothing is overwritten."""
    root = make(tmp_path / "given")
    command = ["convert", str(root), str(root)]
    for refused in (lambda: CocoFolder(root, "train"), lambda: open_dataset(str(root), "train")):
        with pytest.raises(ValueError, match=f"is in {layout} .*`oscillab convert {root} OUT`"):
            refused()
    assert main(["check", str(root)]) == 2 and f"`oscillab convert {root} OUT`" in capsys.readouterr().err
    assert main(command) == 0 and main(["check", str(root)]) == 0
    shown = capsys.readouterr().out
    assert "images, " in shown and f"next   oscillab check {root}" in shown and "same images" in shown
    assert main(command) == 2 and "is there already: nothing is overwritten" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "nowhere"), str(tmp_path)]) == 2 and "no folder" in capsys.readouterr().err
