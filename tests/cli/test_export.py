"""The commands `export`, `inspect`, `evaluate` and `predict`: an ONNX file beside the checkpoint it came from."""

import json

import cv2
import numpy as np
import pytest
import torch

import oscillab
from oscillab.__main__ import main
from oscillab.data.images import read_image
from oscillab.data.nms import detect
from oscillab.data.scenes import Scenes
from oscillab.provenance import SHIPPED


def test_a_folder_gives_its_best_network_and_inspect_says_what_is_saved(tmp_path, capsys):
    """Oracle: ema.pt, of 3 bits, comes before lsq.pt; the JSON file; 60 convolutions, the first of 8 bits."""
    run, out, values = tmp_path / "run", tmp_path / "model.onnx", tmp_path / "values.json"
    run.mkdir()
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for name, bits in (("lsq", 4), ("ema", 3)):
        model = oscillab.quantize(oscillab.load(SHIPPED), oscillab.QuantSpec(bits=bits), [pictures])
        oscillab.save(model, run / f"{name}.pt")
    assert main(["export", str(run), str(out), "--json", str(values)]) == 0
    measured = json.loads(values.read_text())
    assert measured["network"].endswith("ema.pt") and measured["bytes"] == out.stat().st_size
    assert "batch norms kept" in capsys.readouterr().out
    assert set(oscillab.load_onnx(out).facts.bits.values()) == {3, 8}
    assert main(["export", str(run / "lsq.pt"), str(out), "--size", "160"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "image size    160" in shown and "4-bit states are stored in 4-bit integers" in shown
    assert "model.0.conv              1728     8          8" in shown and "smaller and not faster" in shown


def test_evaluate_takes_an_exported_file(places, capsys):
    """Oracle: mAP of the float file is that of the float checkpoint, to three places."""
    found = []
    for weights in (SHIPPED, places / "float.onnx"):
        capsys.readouterr()
        assert main(["evaluate", "--weights", str(weights), "--held-out", "16", "--no-progress"]) == 0
        found.append(capsys.readouterr().out)
    assert found[0].split()[:2] == ["map", found[1].split()[1]] and float(found[0].split()[1]) > 0.5


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder with the shipped detector's float file and two scenes as pictures, one of them cut to a strip."""
    folder = tmp_path_factory.mktemp("predict")
    assert main(["export", str(SHIPPED), str(folder / "float.onnx")]) == 0
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
