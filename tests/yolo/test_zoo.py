"""Oracles: the official network's output on a real image, round trips through files, and the errors' own words."""

import lzma
import zlib

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.yolo import zoo


@pytest.fixture
def saved(tmp_path):
    """A function(content, name) that saves `content` and gives its path."""

    def save(content, name="given.pt"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def test_the_real_weights_give_the_official_output(shared):
    """Oracle: the official code's decoded output on a real image; 1e-4 relative, where float32 gives about 6e-6."""
    oracle = np.load(shared / "oracle" / "real-yolov5n.npz")
    model = zoo.load(shared / "coco" / "yolov5n.pt")
    with torch.no_grad():
        found = model(torch.from_numpy(oracle["pixels"]).float() / 255).numpy()
    np.testing.assert_allclose(found, oracle["decoded"], rtol=1e-4, atol=1e-4)
    assert (model.name, model.names[0], model.classes, model.strides) == ("yolov5n", "person", 80, (8, 16, 32))
    assert model.anchors[2].flatten().tolist() == [116, 90, 156, 198, 373, 326]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    constants = {(layer.eps, layer.momentum) for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert constants == {(1e-3, 0.03)}


@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
def test_a_saved_network_loads_as_it_was(precision, saved):
    """Oracle: the network before; half precision within its rounding, which is exact for the rounded weights."""
    torch.manual_seed(0)
    model = zoo.build("yolov5s", 3, names=["a", "b", "c"]).to(precision)
    with torch.no_grad():
        model.head.anchors.mul_(1.5)  # other anchors travel with the weights
    own = {"format": "oscillab", "version": 1, "name": "yolov5s", "classes": 3, "names": model.names}
    loaded = zoo.load(saved({**own, "model": model.state_dict()}))
    assert not loaded.training
    assert (loaded.name, loaded.names, loaded.classes) == ("yolov5s", ["a", "b", "c"], 3)
    assert all(
        torch.equal(value, model.state_dict()[key].to(value.dtype)) for key, value in loaded.state_dict().items()
    )
    assert loaded.anchors[0, 0].tolist() == [15, 19.5]


def test_a_plain_state_dict_is_recognised_by_its_shapes(saved):
    """Oracle: the name that was built, for each size of which a file is small enough to write here."""
    for name, classes in (("yolov5n", 5), ("yolov5s", 80)):
        path = saved({key: value.half() for key, value in zoo.build(name, classes).state_dict().items()})
        assert (zoo.inspect(path).name, zoo.inspect(path).classes) == (name, classes)
    loaded = zoo.load(path)
    assert loaded.names == [str(index) for index in range(80)]


def test_every_name_of_the_zoo_is_told_apart():
    """Oracle: each model's own layout fits it and no other."""
    for name in zoo.MODELS:
        found = zoo.checkpoint.Checkpoint("path", zoo.blueprint(name, 7).state_dict(), classes=7)
        assert [other for other in zoo.MODELS if zoo.difference(found, other) is None] == [name]


def test_class_names_of_another_number_give_way_to_numbers(saved, caplog):
    """Oracle: one name a class; the log tells."""
    state = zoo.build("yolov5n", 3).state_dict()
    own = {"format": "oscillab", "version": 1, "name": "yolov5n", "classes": 3, "names": ["a", "b"], "model": state}
    assert zoo.load(saved(own)).names == ["0", "1", "2"]
    assert "2 names for 3 classes" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("yolov9",), "unknown model 'yolov9', allowed are yolov5n, yolov5s, .*, yolov7-deploy, yolov7-seg"),
        (("yolov5n", 0), r"classes must be a whole number 1\.\.100000, got 0"),
        (("yolov5n", 2.0), r"classes must be a whole number 1\.\.100000, got 2.0"),
        (("yolov5n", True), r"classes must be a whole number 1\.\.100000, got True"),
        (("yolov5n", 10**9), r"classes must be a whole number 1\.\.100000, got 1000000000"),
    ],
)
def test_build_says_what_is_allowed(arguments, message):
    """Oracle: the message."""
    with pytest.raises(ValueError, match=message):
        zoo.build(*arguments)


def test_build_wants_one_name_a_class():
    """Oracle: the message."""
    with pytest.raises(ValueError, match=r"names must hold one name per class \(3\), got 2"):
        zoo.build("yolov5n", 3, names=["a", "b"])


def changed(state, **changes):
    """`state` with entries replaced, or dropped where the new value is None."""
    new = {**state, **{key.replace("__", "."): value for key, value in changes.items()}}
    return {key: value for key, value in new.items() if value is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__3__bn__bias": None}, "nearest is yolov5n, but key 'model.3.bn.bias' is missing"),
        ({"model__30__conv__weight": torch.ones(1)}, "nearest is yolov5n, but key 'model.30.conv.weight' is left over"),
        (
            {"model__0__conv__weight": torch.ones(16, 3, 3, 3)},
            r"key 'model.0.conv.weight' has shape \(16, 3, 3, 3\), expected \(16, 3, 6, 6\)",
        ),
    ],
)
def test_weights_that_do_not_fit_name_file_key_and_remedy(change, message, saved):
    """Oracle: the first difference, by hand."""
    path = saved(changed(zoo.build("yolov5n", 2).state_dict(), **change))
    with pytest.raises(ValueError, match=message) as error:
        zoo.load(path)
    text = str(error.value)
    assert text.startswith(f"{path}: its weights fit no model of the zoo")
    assert text.endswith(f"Give a checkpoint of one of {', '.join(zoo.MODELS)}")
    assert "\n" not in text


def test_an_own_checkpoint_of_another_model_or_class_count_is_refused(saved):
    """Oracle: the message names both."""
    own = {"format": "oscillab", "version": 1, "model": zoo.build("yolov5n", 2).state_dict(), "classes": 2}
    with pytest.raises(ValueError, match="says that it holds yolov5s, but key 'model.0.conv.weight' has shape"):
        zoo.load(saved({**own, "name": "yolov5s"}))
    with pytest.raises(ValueError, match="says that it holds yolov5n, but key 'model.24.m.0.weight' has shape"):
        zoo.load(saved({**own, "name": "yolov5n", "classes": 3}))
    with pytest.raises(ValueError, match="says that it holds yolov9, but unknown model 'yolov9'"):
        zoo.load(saved({**own, "name": "yolov9"}))


def test_a_quantized_checkpoint_is_sent_to_the_right_door(saved):
    """Oracle: the message names the function that opens it."""
    own = {"format": "oscillab", "version": 1, "name": "yolov5n", "classes": 2, "quant": {"bits": 4}}
    path = saved({**own, "model": zoo.build("yolov5n", 2).state_dict()})
    with pytest.raises(ValueError, match=r"holds a quantized network, open it with oscillab.load\(path\)"):
        zoo.load(path)


def test_a_network_with_another_activation_is_refused(shared):
    """Oracle: the activation's name in the file: equal keys alone would give wrong outputs without a word."""
    found = zoo.inspect(shared / "coco" / "yolov5n.pt")
    other = zoo.replace(found, activations=frozenset({"Hardswish"}), name=None)
    assert zoo.difference(other, "yolov5n") == "its activation is Hardswish, expected SiLU"
    other = zoo.replace(found, strides=(4, 8, 16))
    assert zoo.difference(other, "yolov5n") == "its strides are (4, 8, 16), expected (8, 16, 32)"


def test_a_state_dict_of_no_detector_is_refused(saved):
    """Oracle: a lone linear layer lacks the first key of every model."""
    with pytest.raises(ValueError, match="but key 'model.0.conv.weight' is missing. Give a checkpoint"):
        zoo.load(saved(nn.Linear(2, 2).state_dict()))


def test_real_fused_weights_give_the_official_output(shared, caplog):
    """Oracle: the official code's output with the same weights before they were folded and rounded to half precision.

    To change every folded weight by up to half of its last digit moves boxes by 0.03 pixels, coefficients and
    prototypes by 0.001 (root mean square, measured): the limits are no wider.
    """
    oracle = np.load(shared / "oracle" / "real-yolov5n-seg.npz")
    model = zoo.load(shared / "coco" / "yolov5n-seg-fused.pt")
    assert (model.name, model.task, model.classes, model.training) == ("yolov5n-seg", "segment", 80, False)
    assert "good to evaluate and to export, not to train" in caplog.text
    with torch.no_grad():
        decoded, prototypes = (x.numpy() for x in model(torch.from_numpy(oracle["pixels"]).float() / 255))

    def distance(found, expected):
        return np.sqrt(np.square(found - expected).mean())

    assert distance(decoded[..., :4], oracle["decoded"][..., :4]) < 0.03
    assert distance(decoded[..., 4:85], oracle["decoded"][..., 4:85]) < 1e-4
    assert distance(decoded[..., 85:], oracle["decoded"][..., 85:]) < 1e-3
    assert distance(prototypes, oracle["proto"]) < 1e-3
    assert np.abs(oracle["decoded"][..., 85:]).mean() > 0.1  # against which 1e-3 is little


def test_a_fused_network_is_recognised_saved_and_loaded(saved):
    """Oracle: the network that was saved; its layout tells what it is."""
    model = zoo.fuse(zoo.build("yolov7-tiny-deploy", 4))
    own = {"format": "oscillab", "version": 1, "name": "yolov7-tiny-deploy", "classes": 4, "names": list("abcd")}
    loaded = zoo.load(saved({**own, "model": model.state_dict()}))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert zoo.inspect(saved(zoo.fuse(zoo.build("yolov5n-seg", 6)).state_dict())).name == "yolov5n-seg"


@pytest.mark.parametrize("name", ["yolov5n-seg", "yolov7-tiny", "yolov7-tiny-deploy"])
def test_files_made_by_the_official_code_load(name, shared, tmp_path):
    """Oracle: which model each file holds, and the constant that each of its entries was filled with."""
    path = tmp_path / "official.pt"
    path.write_bytes(lzma.decompress((shared / "oracle" / "checkpoints" / f"{name}_stripped.pt.xz").read_bytes()))
    model = zoo.load(path)
    assert (model.name, model.classes, model.training, len(model.names)) == (name, 80, False, 80)
    for key, value in model.state_dict().items():
        if value.is_floating_point() and "anchor" not in key:
            assert (value == (zlib.crc32(key.encode()) % 1000 + 1) / 1024).all()
    if name.startswith("yolov7"):
        assert model.head.anchor_grid[2].flatten().tolist() == model.anchors[2].flatten().tolist()


def test_a_plain_state_dict_of_a_segmenting_network_tells_its_classes(saved):
    """Oracle: the model that was saved: its head has 32 outputs more, which are no classes."""
    found = zoo.inspect(saved(zoo.build("yolov5n-seg", 7).state_dict()))
    assert (found.name, found.classes) == ("yolov5n-seg", 7)


def test_networks_outside_the_zoo_are_named(saved):
    """Oracle: kind, file and remedy in words, from tensors alone or from the classes that a pickle names."""
    state = {"model.33.anchors": torch.ones(4, 3, 2), "model.33.m.0.bias": torch.ones(255)}
    classifier = {"model.0.conv.weight": torch.ones(1), "model.9.linear.weight": torch.ones(10, 4)}
    for content, kind in ((state, "a P6 network, with a fourth level"), (classifier, "a classification network")):
        with pytest.raises(
            ValueError, match=rf"given.pt: holds {kind}.*\. Give a checkpoint of one of yolov5n, yolov5s"
        ):
            zoo.load(saved(content))
    found = zoo.checkpoint.Checkpoint("path", {"w": torch.ones(1)}, kinds=frozenset({"ultralytics.nn.tasks.Model"}))
    assert zoo.misfit(found).startswith(
        "holds a network of the ultralytics package (YOLOv8 and later, or YOLOv5u). Give"
    )
    p6 = zoo.replace(found, kinds=frozenset(), strides=(8, 16, 32, 64))
    assert zoo.checkpoint.foreign(p6) == "a P6 network, with a fourth level of stride 64"
    classes = zoo.replace(found, kinds=frozenset({"models.common.Classify"}))
    assert zoo.checkpoint.foreign(classes) == "a classification network, which predicts no boxes"
    assert zoo.checkpoint.foreign(zoo.replace(found, kinds=frozenset({"models.yolo.Model"}))) is None


def test_a_tiny_network_with_the_other_activation_is_refused(shared, tmp_path):
    """Oracle: the file's own list of activations: YOLOv7-tiny is released with LeakyReLU alone, a SiLU form exists."""
    path = tmp_path / "official.pt"
    path.write_bytes(lzma.decompress((shared / "oracle" / "checkpoints" / "yolov7-tiny_stripped.pt.xz").read_bytes()))
    found = zoo.inspect(path)
    other = zoo.replace(found, activations=frozenset({"SiLU"}), name=None)
    assert zoo.difference(other, "yolov7-tiny") == "its activation is SiLU, expected LeakyReLU"
