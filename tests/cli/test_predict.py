"""The command `predict`: the same boxes from a checkpoint and from its file, drawn into pictures of any size."""

import cv2
import numpy as np
import pytest

import oscillab
from oscillab.__main__ import main
from oscillab.data.images import read_image
from oscillab.data.nms import detect
from oscillab.data.scenes import Scenes
from oscillab.export.write import export_onnx
from oscillab.provenance import SHIPPED


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder with the shipped detector's float file and two scenes as pictures, one of them cut to a strip."""
    folder = tmp_path_factory.mktemp("predict")
    export_onnx(oscillab.load(SHIPPED), folder / "float.onnx")
    scenes = Scenes(2, split="val")
    for name, image in (("square.png", scenes.sample(0).image), ("strip.png", scenes.sample(1).image[:100])):
        cv2.imwrite(str(folder / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return folder


def test_a_checkpoint_and_its_file_find_the_same(places, tmp_path, capsys, caplog):
    """Oracle: the torch model for the file; pictures of one size, drawn into; a folder's two images, a warned size."""
    tables = []
    for model in (SHIPPED, places / "float.onnx"):
        pictures = [str(places / name) for name in ("square.png", "strip.png")]
        out = tmp_path / model.suffix[1:]
        assert main(["predict", str(model), *pictures, "--size", "160", "--out", str(out)]) == 0
        tables.append(capsys.readouterr().out.splitlines()[:-1])  # without the folder's name
        for name in ("square.png", "strip.png"):
            before, after = read_image(places / name), read_image(out / name)
            assert after.shape == before.shape and (after != before).any()
    assert tables[0] == tables[1] and len(tables[0]) > 4
    assert main(["predict", str(SHIPPED), str(places), "--size", "64", "--out", str(tmp_path / "all")]) == 0
    assert {path.name for path in (tmp_path / "all").iterdir()} == {"square.png", "strip.png"}
    assert "was trained with images of 160 pixels and is given images of 64" in caplog.text


def test_boxes_of_the_ground_truth_and_masks_within_them(places):
    """Oracle: the scene's boxes, half of them found to an IoU of a half; masks of the picture's size, in boxes."""
    sample, model = Scenes(2, split="val").sample(0), oscillab.load(SHIPPED)
    found = detect(model, sample.image, size=160)
    low = np.maximum(sample.boxes[:, None, :2], found.boxes[None, :, :2])
    high = np.minimum(sample.boxes[:, None, 2:], found.boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (sample.boxes, found.boxes)]
    iou = shared / (areas[0][:, None] + areas[1][None] - shared)
    assert (iou.max(1) > 0.5).mean() >= 0.5 and found.masks is None
    model = oscillab.build("yolov5n-seg", classes=3).eval()
    found = detect(model, np.full((50, 70, 3), 90, np.uint8), size=64, conf=0.0001)
    assert found.masks.shape == (len(found.boxes), 50, 70) and len(found.boxes) > 0
    for box, mask in zip(found.boxes, found.masks, strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows):
            assert columns.min() >= box[0] - 2 and columns.max() <= box[2] + 2
            assert rows.min() >= box[1] - 2 and rows.max() <= box[3] + 2
