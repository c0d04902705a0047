"""Oracles: files in the official format with known content, the real official file, and what was saved here."""

import argparse
import hashlib
import json
import logging
import lzma
import pathlib
import pickle
import sys
import types
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import oscillab
from oscillab.provenance import SHIPPED
from oscillab.quant import integer_state, quant_layers
from oscillab.yolo import blocks, checkpoint, graph, heads, zoo
from oscillab.yolo.checkpoint import load_matching_weights
from oscillab.yolo.graph import fuse

V5_ANCHORS = [10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326]


@pytest.fixture
def official(monkeypatch):
    """A function(detector, **attributes) that gives the network as an object that pickles under the official names."""
    common, yolo = types.ModuleType("models.common"), types.ModuleType("models.yolo")
    for module in (common, yolo):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "models", types.ModuleType("models"))
    for source, target in ((blocks, common), (graph, yolo), (heads, yolo)):
        for name, kind in vars(source).items():
            if isinstance(kind, type) and kind.__module__ == source.__name__ and issubclass(kind, nn.Module):
                monkeypatch.setattr(kind, "__module__", target.__name__)
                setattr(target, name, kind)

    def make(detector, **attributes):
        detector.__dict__.update({"nc": detector.classes, "stride": torch.tensor(detector.strides)}, **attributes)
        return detector.half()

    return make


def test_the_real_official_file(shared):
    """Oracle: the facts about `yolov5n.pt`: its digest, names, anchors, strides, epoch, BatchNorm constants."""
    path = shared / "coco" / "yolov5n.pt"
    digest = "4f180cf23ba0717ada0badd6c685026d73d48f184d00fc159c2641284b2ac0a3"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    found = checkpoint.read(path)
    layout = json.loads((shared / "oracle" / "keys" / "yolov5n.json").read_text())
    assert [[key, list(value.shape)] for key, value in found.state.items()] == [row[:2] for row in layout]
    assert (found.classes, found.names[0], found.names[79], len(found.names)) == (80, "person", "toothbrush", 80)
    assert (found.strides, found.epoch, found.bn, found.activations) == ((8, 16, 32), -1, (1e-3, 0.03), {"SiLU"})
    assert found.anchors.flatten().tolist() == V5_ANCHORS
    variances = [value.float().min().item() for key, value in found.state.items() if key.endswith("running_var")]
    assert min(variances) == pytest.approx(0.00175, abs=1e-5)


FILES = {"yolov5n-seg": "SiLU", "yolov7-tiny": "LeakyReLU", "yolov7-tiny-deploy": "LeakyReLU"}


@pytest.fixture
def recorded(shared, tmp_path):
    """A function(name) that gives the path of a file that the official code made."""

    def unpack(name):
        packed = (shared / "oracle" / "checkpoints" / f"{name}_stripped.pt.xz").read_bytes()
        (tmp_path / f"{name}.pt").write_bytes(lzma.decompress(packed))
        return tmp_path / f"{name}.pt"

    return unpack


@pytest.mark.parametrize("name", FILES)
def test_files_made_by_the_official_code(name, recorded, shared):
    """Oracle: every float entry was filled with (crc32(key) % 1000 + 1) / 1024; keys and order are recorded."""
    found, model = checkpoint.read(recorded(name)), checkpoint.load(recorded(name))
    layout = json.loads((shared / "oracle" / "keys" / f"{name}.json").read_text())
    assert [[key, list(value.shape)] for key, value in found.state.items()] == [row[:2] for row in layout]
    assert {value.dtype for value in found.state.values() if value.is_floating_point()} == {torch.float16}
    for key, value in [*found.state.items(), *model.state_dict().items()]:
        if value.is_floating_point() and "anchor" not in key:
            assert (value == (zlib.crc32(key.encode()) % 1000 + 1) / 1024).all()
    assert found.anchors.flatten().tolist() == V5_ANCHORS
    assert (found.classes, found.bn, found.activations) == (80, (1e-3, 0.03), {FILES[name]})
    assert (model.name, model.classes, model.training, len(model.names)) == (name, 80, False, 80)
    if name.startswith("yolov7"):
        assert model.head.anchor_grid[2].flatten().tolist() == model.anchors[2].flatten().tolist()


@pytest.mark.parametrize("names", [["cat", "dog"], {0: "cat", 1: "dog"}])
def test_a_full_checkpoint_gives_its_averaged_weights(names, official, tmp_path):
    """Oracle: the state_dict of the object saved under `ema`; numpy, path and namespace values stay dead."""
    torch.manual_seed(0)
    model, ema = (official(zoo.build("yolov5n", 2), names=names) for _ in range(2))
    path = tmp_path / "last.pt"
    torch.save(
        {
            "epoch": 7,
            "best_fitness": np.array([0.5]),
            "model": model,
            "ema": ema,
            "updates": 100,
            "optimizer": torch.optim.SGD(model.parameters(), 0.1, momentum=0.9).state_dict(),
            "opt": argparse.Namespace(save_dir=pathlib.PurePosixPath("runs")),
            "date": "2022-02-08",
        },
        path,
    )
    found = checkpoint.read(path)
    assert list(found.state) == list(ema.state_dict())
    assert all(torch.equal(value, ema.state_dict()[key]) for key, value in found.state.items())
    assert not torch.equal(found.state["model.0.conv.weight"], model.state_dict()["model.0.conv.weight"])
    assert (found.epoch, found.names, found.classes) == (7, ["cat", "dog"], 2)


def test_a_stripped_checkpoint_has_no_ema(official, tmp_path):
    """Oracle: PyTorch's state_dict of the object saved under `model`, without buffers that it leaves out."""
    model = official(zoo.build("yolov5n", 3), names=["a", "b", "c"])
    model.model[0].register_buffer("scratch", torch.ones(1), persistent=False)
    torch.save({"epoch": -1, "model": model, "ema": None, "optimizer": None}, tmp_path / "best.pt")
    found = checkpoint.read(tmp_path / "best.pt")
    assert list(found.state) == list(model.state_dict())
    assert torch.equal(found.state["model.24.m.2.bias"], model.state_dict()["model.24.m.2.bias"])
    assert (found.epoch, found.names) == (-1, ["a", "b", "c"])


def test_a_plain_state_dict_tells_its_classes_and_anchors(tmp_path):
    """Oracle: the model that was saved."""
    model = zoo.build("yolov5n", 12)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    found = checkpoint.read(tmp_path / "state.pt")
    assert (found.classes, found.names, found.epoch, found.bn) == (12, None, None, None)
    assert torch.equal(found.anchors, model.anchors)


def test_an_own_checkpoint_tells_what_was_saved(tmp_path):
    """Oracle: the dict that was saved; tensors in half precision stay so."""
    model = zoo.build("yolov5n", 2).half()
    own = {"format": "oscillab", "version": 1, "name": "yolov5n", "classes": 2, "names": ["a", "b"], "epoch": 4}
    torch.save({**own, "model": model.state_dict(), "quant": {"bits": 3}}, tmp_path / "own.pt")
    found = checkpoint.read(tmp_path / "own.pt")
    assert (found.name, found.classes, found.names, found.epoch) == ("yolov5n", 2, ["a", "b"], 4)
    assert found.quant == {"bits": 3}
    assert found.state["model.0.conv.weight"].dtype == torch.float16


def nest(**state):
    """A program's part for a module record with that state: name and value are parts too."""
    parts = {"_parameters": b"}", "_buffers": b"}", "_modules": b"}"} | state
    items = b"".join(b"X" + len(key).to_bytes(4, "little") + key.encode() + part for key, part in parts.items())
    return b"cmodels.yolo\nModel\n)\x81}(" + items + b"ub"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}, "trainer": {}}, "is the state of an interrupted run; go on with it by --resume"),
        ([[]], "holds no network: neither a pickled module under 'ema' or 'model' nor a state_dict"),
        ({"model": None, "ema": None}, "expected a state_dict, a mapping of names to tensors"),
        ({}, "expected a state_dict"),
        ({"format": "oscillab", "version": 2}, "its format version must be 1"),
        ({"format": "oscillab", "version": 1}, "its network is malformed"),
        ({"format": "oscillab", "version": 1, "model": {}, "classes": "many"}, "holds a str where a int belongs"),
    ],
)
def test_archives_without_a_network_are_refused_in_one_line(content, message, archive_of):
    """Oracle: the message names the file and what was expected."""
    path = archive_of(content)
    with pytest.raises(ValueError, match=message) as error:
        checkpoint.read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_ten_thousand_nested_lists_are_refused_in_one_line(archive_of):
    """Oracle: no RecursionError, no crash: the file is read and is no checkpoint."""
    for program in (
        b"]" + b"q\x00]h\x00a" * 10_000 + b".",
        b"X\x05\x00\x00\x00model" + b"]" * 10_000 + b"a" * 9_999 + b".",
    ):
        path = archive_of(program)
        with pytest.raises(ValueError, match="holds no network") as error:
            checkpoint.read(path)
        assert len(str(error.value).splitlines()) == 1


def test_a_pickled_module_without_end_is_refused(archive_of):
    """Oracle: the test ends: a module that holds itself has paths without end, one that holds two copies 2 ** depth."""
    inside = nest(_modules=b"}X\x01\x00\x00\x00ah\x00s").replace(b")\x81}(", b")\x81q\x00}(")
    with pytest.raises(ValueError, match="its modules must be at most 16 deep"):
        checkpoint.read(archive_of(inside + b"."))
    program = nest() + b"q\x00"
    for index in range(15):
        twice = (
            b"}(" + b"".join(b"X\x01\x00\x00\x00" + key + b"h" + bytes([index]) for key in (b"a", b"b", b"c")) + b"u"
        )
        program += b"\x85" + nest(_modules=twice) + b"q" + bytes([index + 1]) + b"\x86"
    with pytest.raises(ValueError, match="must have at most 10000 modules"):
        checkpoint.read(archive_of(program[:-1] + b"."))


def test_a_truncated_official_file_is_refused(shared, tmp_path):
    """Oracle: the message names the file."""
    data = (shared / "coco" / "yolov5n.pt").read_bytes()
    path = tmp_path / "half.pt"
    for length in (100, 100_000, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="half.pt: was cut short"):
            checkpoint.read(path)


def test_a_checkpoint_with_a_payload_does_nothing_and_names_it(tmp_path):
    """Oracle: `pickle.loads` of the same program creates the file; reading does not."""

    class Payload:
        def __reduce__(self):
            return open, (str(tmp_path / "made"), "w")

    torch.save({"model": Payload(), "epoch": -1}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil.pt: names the foreign object '(io|_io|__builtin__|builtins).open'"):
        checkpoint.read(tmp_path / "evil.pt")
    assert not (tmp_path / "made").exists()
    pickle.loads(pickle.dumps(Payload())).close()
    assert (tmp_path / "made").exists()


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
    model = checkpoint.load(shared / "coco" / "yolov5n.pt")
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
    loaded = checkpoint.load(saved({**own, "model": model.state_dict()}))
    assert not loaded.training
    assert (loaded.name, loaded.names, loaded.classes) == ("yolov5s", ["a", "b", "c"], 3)
    assert all(
        torch.equal(value, model.state_dict()[key].to(value.dtype)) for key, value in loaded.state_dict().items()
    )
    assert loaded.anchors[0, 0].tolist() == [15, 19.5]


def test_a_plain_state_dict_is_recognised_by_its_shapes(saved):
    """Oracle: the name that was built, for each size of which a file is small enough to write here."""
    for name, classes in (("yolov5n-seg", 7), ("yolov5n", 5), ("yolov5s", 80)):
        path = saved({key: value.half() for key, value in zoo.build(name, classes).state_dict().items()})
        assert (checkpoint.inspect(path).name, checkpoint.inspect(path).classes) == (name, classes)
    loaded = checkpoint.load(path)
    assert loaded.names == [str(index) for index in range(80)]


def test_every_name_of_the_zoo_is_told_apart():
    """Oracle: each model's own layout fits it and no other."""
    for name in zoo.MODELS:
        found = checkpoint.Checkpoint("path", zoo.blueprint(name, 7).state_dict(), classes=7)
        assert [other for other in zoo.MODELS if zoo.difference(found, other) is None] == [name]


def test_class_names_of_another_number_give_way_to_numbers(saved, caplog):
    """Oracle: one name a class; the log tells."""
    state = zoo.build("yolov5n", 3).state_dict()
    own = {"format": "oscillab", "version": 1, "name": "yolov5n", "classes": 3, "names": ["a", "b"], "model": state}
    assert checkpoint.load(saved(own)).names == ["0", "1", "2"]
    assert "2 names for 3 classes" in caplog.text


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
        checkpoint.load(path)
    text = str(error.value)
    assert text.startswith(f"{path}: its weights fit no model of the zoo")
    assert text.endswith(f"Give a checkpoint of one of {', '.join(zoo.MODELS)}")
    assert "\n" not in text


def test_an_own_checkpoint_of_another_model_or_class_count_is_refused(saved):
    """Oracle: the message names both."""
    own = {"format": "oscillab", "version": 1, "model": zoo.build("yolov5n", 2).state_dict(), "classes": 2}
    with pytest.raises(ValueError, match="says that it holds yolov5s, but key 'model.0.conv.weight' has shape"):
        checkpoint.load(saved({**own, "name": "yolov5s"}))
    with pytest.raises(ValueError, match="says that it holds yolov5n, but key 'model.24.m.0.weight' has shape"):
        checkpoint.load(saved({**own, "name": "yolov5n", "classes": 3}))
    with pytest.raises(ValueError, match="says that it holds yolov9, but unknown model 'yolov9'"):
        checkpoint.load(saved({**own, "name": "yolov9"}))


def test_a_network_with_another_activation_is_refused(shared, recorded):
    """Oracle: the activation in the file; equal keys alone would give wrong outputs without a word."""
    found = checkpoint.inspect(shared / "coco" / "yolov5n.pt")
    other = replace(found, activations=frozenset({"Hardswish"}), name=None)
    assert zoo.difference(other, "yolov5n") == "its activation is Hardswish, expected SiLU"
    assert (
        zoo.difference(replace(found, strides=(4, 8, 16)), "yolov5n")
        == "its strides are (4, 8, 16), expected (8, 16, 32)"
    )
    other = replace(checkpoint.inspect(recorded("yolov7-tiny")), activations=frozenset({"SiLU"}), name=None)
    assert zoo.difference(other, "yolov7-tiny") == "its activation is SiLU, expected LeakyReLU"


def test_real_fused_weights_give_the_official_output(shared, caplog):
    """Oracle: the official code's output with the same weights before they were folded and rounded to half precision.

    To change every folded weight by up to half of its last digit moves boxes by 0.03 pixels, coefficients and
    prototypes by 0.001 (root mean square, measured): the limits are no wider.
    """
    oracle = np.load(shared / "oracle" / "real-yolov5n-seg.npz")
    model = checkpoint.load(shared / "coco" / "yolov5n-seg-fused.pt")
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
    model = fuse(zoo.build("yolov7-tiny-deploy", 4))
    own = {"format": "oscillab", "version": 1, "name": "yolov7-tiny-deploy", "classes": 4, "names": list("abcd")}
    loaded = checkpoint.load(saved({**own, "model": model.state_dict()}))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert checkpoint.inspect(saved(fuse(zoo.build("yolov5n-seg", 6)).state_dict())).name == "yolov5n-seg"


def test_networks_outside_the_zoo_are_named(saved):
    """Oracle: kind, file and remedy in words, from tensors alone or from the classes that a pickle names."""
    state = {"model.33.anchors": torch.ones(4, 3, 2), "model.33.m.0.bias": torch.ones(255)}
    classifier = {"model.0.conv.weight": torch.ones(1), "model.9.linear.weight": torch.ones(10, 4)}
    for content, kind in ((state, "a P6 network, with a fourth level"), (classifier, "a classification network")):
        with pytest.raises(
            ValueError, match=rf"given.pt: holds {kind}.*\. Give a checkpoint of one of yolov5n, yolov5s"
        ):
            checkpoint.load(saved(content))
    found = checkpoint.Checkpoint("path", {"w": torch.ones(1)}, kinds=frozenset({"ultralytics.nn.tasks.Model"}))
    assert zoo.misfit(found).startswith(
        "holds a network of the ultralytics package (YOLOv8 and later, or YOLOv5u). Give"
    )
    p6 = replace(found, kinds=frozenset(), strides=(8, 16, 32, 64))
    assert zoo.foreign(p6) == "a P6 network, with a fourth level of stride 64"
    classes = replace(found, kinds=frozenset({"models.common.Classify"}))
    assert zoo.foreign(classes) == "a classification network, which predicts no boxes"
    assert zoo.foreign(replace(found, kinds=frozenset({"models.yolo.Model"}))) is None


def test_a_segmenting_network_takes_the_detectors_backbone_and_neck(caplog):
    """Oracle: by hand: all 343 tensors of rows 0 to 23 and the anchors, but none of the head's convolutions."""
    torch.manual_seed(0)
    model, source = zoo.build("yolov5n-seg", 10), oscillab.load(SHIPPED)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with caplog.at_level(logging.INFO, "oscillab.yolo.checkpoint"):
        assert load_matching_weights(model, SHIPPED) == 343
    assert "took 343 of 367 tensors of yolov5n-seg" in caplog.text and "the others start at random" in caplog.text
    given = source.state_dict()
    for key, value in model.state_dict().items():
        taken = not key.startswith(("model.24.m.", "model.24.proto."))
        assert torch.equal(value, given[key] if taken else before[key])


def test_what_cannot_be_a_start_is_refused(tmp_path):
    """Oracle: the one-line messages: quantized, fused, and a network without a tensor in common."""
    model = oscillab.load(SHIPPED)
    fused = oscillab.save(fuse(model), tmp_path / "fused.pt")
    quantized = oscillab.quantize(oscillab.load(SHIPPED), oscillab.QuantSpec(bits=4), [torch.rand(1, 3, 64, 64)])
    oscillab.save(quantized, tmp_path / "quantized.pt")
    for path, kind in ((fused, "fused"), (tmp_path / "quantized.pt", "quantized")):
        with pytest.raises(ValueError, match=rf"{path.name} is {kind}.*; start from a float checkpoint"):
            load_matching_weights(zoo.build("yolov5n", 10), path)
    with pytest.raises(ValueError, match="no tensor of yolov5n has the name and shape of one of Linear's"):
        other = torch.nn.Linear(2, 2)
        other.name = "Linear"
        load_matching_weights(other, SHIPPED)


def test_names_with_text_keys_are_ordered_by_number(official, tmp_path):
    """Oracle: by hand: eleven classes whose keys are texts; sorted as texts, 10 would stand before 2."""
    model = official(zoo.build("yolov5n", 11), names={str(number): f"class {number}" for number in range(11)})
    torch.save({"model": model}, tmp_path / "text.pt")
    assert oscillab.load(tmp_path / "text.pt").names == [f"class {number}" for number in range(11)]


@pytest.mark.parametrize("names", [{"cat": 0, "dog": 1}, {0: "cat", "x": "dog"}, [b"cat", b"dog"], {0: 1, 1: 2}])
def test_names_that_are_given_up_are_said(names, official, tmp_path, caplog):
    """Oracle: numbers in their place, and the log."""
    torch.save({"model": official(zoo.build("yolov5n", 2), names=names)}, tmp_path / "names.pt")
    assert oscillab.load(tmp_path / "names.pt").names == ["0", "1"]
    assert "its class names" in caplog.text and "numbers are used" in caplog.text


@pytest.mark.parametrize("place", ["", "model", "state_dict", "ema", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["module.", "module.module."])
def test_what_parallel_training_and_thop_add_is_left_out_with_a_word(prefix, place, saved, caplog):
    """Oracle: the network before its keys were changed."""
    model = zoo.build("yolov5n", 2)
    state = {prefix + key: tensor for key, tensor in model.state_dict().items()}
    state |= {prefix + "total_ops": torch.zeros(1), prefix + "model.0.conv.total_params": torch.zeros(1)}
    loaded = oscillab.load(saved({place: state, "epoch": 3} if place else state))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert "2 counters of operations" in caplog.text and "'module.' before its keys" in caplog.text


def test_a_checkpoint_carries_its_training_size(tmp_path):
    """Oracle: the number given, kept by a second saving; a file of before has none."""
    model = zoo.build("yolov5n", 2)
    first = oscillab.load(oscillab.save(model, tmp_path / "first.pt", size=160))
    assert (first.size, oscillab.load(oscillab.save(first, tmp_path / "second.pt")).size) == (160, 160)
    assert oscillab.load(oscillab.save(model, tmp_path / "none.pt")).size is None


@pytest.mark.parametrize("spec", [{"bits": 4}, {"bits": 3, "weight_granularity": "per_channel"}, {"bits": 8}])
def test_half_precision_keeps_every_integer_state(spec, tmp_path):
    """Oracle: the states before saving, of weights of which many lie at an edge; plain rounding would move some of them."""
    model = oscillab.quantize(oscillab.load(SHIPPED), oscillab.QuantSpec(**spec), [torch.rand(1, 3, 64, 64)])
    layers = quant_layers(model)
    for layer in layers.values():
        edges = (layer.integer_state() + 0.4999) * layer.weight_step_size().view(-1, 1, 1, 1)
        layer.weight.data.flatten()[::3] = edges.flatten()[::3]
        assert (layer.weight.half().float() != layer.weight).any()
    plain = sum(
        int((integer_state(one.weight.half().float(), one.weight_step_size(), one.weight_quantizer.low,
                           one.weight_quantizer.high) != one.integer_state()).sum()) for one in layers.values()
    )  # fmt: skip
    loaded = quant_layers(oscillab.load(oscillab.save(model, tmp_path / "half.pt", half=True)))
    assert plain > 100
    for name, layer in layers.items():
        assert torch.equal(loaded[name].integer_state(), layer.integer_state())
        assert torch.equal(loaded[name].weight_step_size(), layer.weight_step_size())
    assert (tmp_path / "half.pt").stat().st_size < 0.6 * oscillab.save(model, tmp_path / "full.pt").stat().st_size


def test_half_precision_refuses_what_it_cannot_hold(tmp_path):
    """Oracle: 65504 is the largest half; steps of 1e-9 lie below the smallest. No file is left."""
    model = zoo.build("yolov5n", 2)
    model.model[0].bn.running_var.fill_(1e6)
    with pytest.raises(
        ValueError, match="half precision cannot hold the numbers of 'model.0.bn.running_var', up to 1e"
    ):
        oscillab.save(model, tmp_path / "large.pt", half=True)
    model = oscillab.quantize(oscillab.load(SHIPPED), oscillab.QuantSpec(bits=4), [torch.rand(1, 3, 64, 64)])
    layer = model.model[3].conv
    for tensor in (layer.weight.data, layer.weight_quantizer.step_size.data, layer.weight_quantizer.floor):
        tensor.mul_(1e-8)
    with pytest.raises(ValueError, match="too coarse for the integer states of layer 'model.3.conv'"):
        oscillab.save(model, tmp_path / "small.pt", half=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("model.22.dfl.conv.weight", "the ultralytics package"),
        ("module_list.0.Conv2d.weight", "Darknet-style"),
        ("head.cls_preds.0.weight", "a YOLOX network"),
        ("bbox_head.conv.weight", "MMDetection"),
        ("transformer.encoder.layers.0.weight", "DETR"),
        ("backbone.body.conv1.weight", "torchvision"),
        ("layer1.0.conv1.weight", "a ResNet"),
    ],
)
def test_state_dicts_of_other_networks_are_named(key, words, saved):
    """Oracle: how their authors name their layers."""
    with pytest.raises(ValueError, match=f"given.pt: holds .*{words}.* Give a checkpoint of one of yolov5n"):
        oscillab.load(saved({key: torch.ones(1)}))
