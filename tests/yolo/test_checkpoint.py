"""Oracles: files in the official format with known content, the real official file, and what was saved here."""

import argparse
import hashlib
import json
import lzma
import pathlib
import pickle
import sys
import types
import zlib

import numpy as np
import pytest
import torch
from torch import nn

from oscillab.yolo import blocks, checkpoint, graph, heads, zoo

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


@pytest.mark.parametrize(
    ("name", "activation"), [("yolov5n-seg", "SiLU"), ("yolov7-tiny", "LeakyReLU"), ("yolov7-tiny-deploy", "LeakyReLU")]
)
def test_files_made_by_the_official_code(name, activation, shared, tmp_path):
    """Oracle: every float entry was filled with (crc32(key) % 1000 + 1) / 1024; keys and order are recorded."""
    path = tmp_path / f"{name}.pt"
    path.write_bytes(lzma.decompress((shared / "oracle" / "checkpoints" / f"{name}_stripped.pt.xz").read_bytes()))
    found = checkpoint.read(path)
    layout = json.loads((shared / "oracle" / "keys" / f"{name}.json").read_text())
    assert [[key, list(value.shape)] for key, value in found.state.items()] == [row[:2] for row in layout]
    for key, value in found.state.items():
        if value.is_floating_point() and "anchor" not in key:
            assert value.dtype == torch.float16
            assert (value == (zlib.crc32(key.encode()) % 1000 + 1) / 1024).all()
    assert found.anchors.flatten().tolist() == V5_ANCHORS
    assert (found.classes, found.bn, found.activations) == (80, (1e-3, 0.03), {activation})


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
    """Oracle: the state_dict of the object saved under `model`."""
    model = official(zoo.build("yolov5n", 3), names=["a", "b", "c"])
    torch.save({"epoch": -1, "model": model, "ema": None, "optimizer": None}, tmp_path / "best.pt")
    found = checkpoint.read(tmp_path / "best.pt")
    assert torch.equal(found.state["model.24.m.2.bias"], model.state_dict()["model.24.m.2.bias"])
    assert (found.epoch, found.names) == (-1, ["a", "b", "c"])


def test_buffers_that_no_state_dict_holds_are_left_out(official, tmp_path):
    """Oracle: PyTorch's own state_dict."""
    model = official(zoo.build("yolov5n", 1))
    model.model[0].register_buffer("scratch", torch.ones(1), persistent=False)
    torch.save(model, tmp_path / "object.pt")
    assert list(checkpoint.read(tmp_path / "object.pt").state) == list(model.state_dict())


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
        with pytest.raises(ValueError, match="half.pt: not a complete zip archive"):
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
