"""Oracles: the official network's output on a real image, round trips through files, and the errors' own words."""

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
        (("yolov9",), "unknown model 'yolov9', allowed are yolov5n, yolov5s, yolov5m, yolov5l, yolov5x"),
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
    assert text.endswith("Give an unfused checkpoint of one of yolov5n, yolov5s, yolov5m, yolov5l, yolov5x")
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
    with pytest.raises(ValueError, match="but key 'model.0.conv.weight' is missing. Give an unfused checkpoint"):
        zoo.load(saved(nn.Linear(2, 2).state_dict()))


def test_a_fused_network_of_another_task_is_refused(shared):
    """Oracle: a real one, whose convolutions have taken in their BatchNorm: the first key that is missing."""
    with pytest.raises(ValueError, match="but key 'model.0.bn.weight' is missing. Give an unfused checkpoint"):
        zoo.load(shared / "coco" / "yolov5n-seg-fused.pt")
