"""Oracles: Python's own pickle and `torch.load` for what is allowed; for the rest: nothing happens, soon, and one line says why."""

import argparse
import collections
import os
import pathlib
import pickle
import random
import struct
import sys
import zipfile

import pytest
import torch

from oscillab.yolo import pt_file
from oscillab.yolo.pt_file import DAMAGE, Inert, Reader, rebuild_tensor


def run(program):
    """What is made of a program."""
    return Reader(program, lambda identity: identity).load()


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def doubled(depth, *, innermost=b"K\x01"):
    """A program's part that leaves a tuple of pairs of pairs …: its text and its hash take 2 ** depth steps."""
    return innermost + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(depth))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_plain_values_and_containers_come_back_as_they_were(protocol):
    """Oracle: Python's own pickle."""
    shared = [1, 2]
    given = {
        "numbers": [0, -1, 255, 256, 70_000, 2**40, -(2**70), 1.5, True, False, None],
        "text": ("", "naïve", "long " * 100),
        "bytes": b"raw" if protocol > 2 else None,
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "shared": [shared, shared],
        7: {"deep": {"er": []}},
    }
    found = run(pickle.dumps(given, protocol))
    assert found == given
    assert found["shared"][0] is found["shared"][1]


def test_a_list_that_holds_itself_is_allowed():
    """Oracle: the identity that pickle keeps."""
    given = []
    given.append(given)
    found = run(pickle.dumps(given, 2))
    assert found[0] is found


def test_what_official_files_name_stays_dead():
    """Oracle: Python's own pickle would make these objects; here only names, arguments and states remain."""
    given = {
        "opt": argparse.Namespace(epochs=3),
        "path": pathlib.PurePosixPath("a", "b"),
        "size": torch.Size([2, 3]),
        "layer": torch.nn.modules.activation.SiLU,
        "ordered": collections.OrderedDict(a=1),
    }
    found = run(pickle.dumps(given, 2))
    assert found["ordered"] == {"a": 1}
    assert type(found["opt"]) is type(found["path"]) is type(found["size"]) is type(found["layer"]) is Inert
    assert (found["opt"].name, found["opt"].state) == ("argparse.Namespace", {"epochs": 3})
    assert (found["size"].name, found["size"].arguments) == ("torch.Size", ((2, 3),))
    assert found["layer"].name == "torch.nn.modules.activation.SiLU"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_would_run_a_command_is_refused_by_name(protocol, tmp_path):
    """Oracle: Python's own pickle creates the file; here there is none, and the message names the function."""
    made = tmp_path / "made"
    program = pickle.dumps(Calls(os.system, f"touch {made}"), protocol)
    with pytest.raises(ValueError, match=rf"foreign object '{os.system.__module__}\.system'"):
        run(program)
    assert not made.exists()
    pickle.loads(program)
    assert made.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("builtins eval", "builtins exec", "builtins __import__", "builtins open", "__builtin__ eval", "os system"),
        *("posix system", "subprocess Popen", "torch load", "torch.hub load", "torch.storage _load_from_bytes"),
        *("numpy.testing._private.utils runstring", "operator attrgetter", "functools partial"),
        *("torch._utils _rebuild_tensor_v2.__globals__", "collections OrderedDict.fromkeys", "copyreg _reconstructor"),
    ],
)
def test_every_other_name_is_refused(name):
    """Oracle: the list of what official files name, of which these are none."""
    with pytest.raises(ValueError, match="names the foreign object") as error:
        run(b"c" + name.replace(" ", "\n").encode() + b"\n.")
    assert "\n" not in str(error.value)


def test_a_pickle_that_would_import_a_module_imports_nothing(tmp_path, monkeypatch):
    """Oracle: Python's own pickle imports it; here `sys.modules` stays without, even under an allowed name."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("foreign_module_of_the_test", "models_of_the_test"):
        (tmp_path / f"{name}.py").write_text("thing = 1\n")
    with pytest.raises(ValueError, match="foreign_module_of_the_test.thing"):
        run(b"cforeign_module_of_the_test\nthing\n.")
    assert run(b"cmodels.of_the_test\nthing\n.").name == "models.of_the_test.thing"
    assert not {"foreign_module_of_the_test", "models", "models.of_the_test"} & set(sys.modules)


def test_the_official_getattr_is_never_resolved():
    """Oracle: segmentation files call getattr; here the call leaves a record, and calling that another one."""
    program = b"c__builtin__\ngetattr\ncmodels.yolo\nSegment\nX\x07\x00\x00\x00forward\x86R(X\x01\x00\x00\x00xtR."
    found = run(program)
    assert (type(found), found.name, found.arguments) == (Inert, "__builtin__.getattr", ("x",))


@pytest.mark.parametrize("wrap", [b"\x85", b"q\x00]h\x00a"])
def test_many_nested_containers_are_read_and_let_go(wrap):
    """Oracle: none is needed but an end: no recursion, no crash, neither while reading nor while letting go."""
    depth = 300_000 if wrap == b"\x85" else 10_000
    found = run(b"]" + wrap * depth + b".")
    for _ in range(depth):
        (found,) = found
    assert found == []


@pytest.mark.parametrize(
    "program",
    [
        b"}" + doubled(60) + b"K\x01s.",  # as a dict key
        b"ccollections\nOrderedDict\n]" + doubled(60) + b"K\x01\x86a\x85R.",
        b"\x80\x04" + doubled(60) + b"K\x01\x93.",  # as a module name
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00" + doubled(60) + b"K\x01tR.",  # as a size
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00K\x01\x85" + doubled(60) + b"\x85tR.",  # in a stride
    ],
)
def test_values_that_take_for_ever_to_hash_or_print_are_refused_at_once(program):
    """Oracle: the test ends: hashing or printing such a tuple would take 2 ** 60 steps."""
    with pytest.raises((ValueError, *DAMAGE)) as error:
        run(program)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"(i__main__\nthing\n.", "instruction b'i'"),
        (b"\x82\x01.", "instruction b'.x82'"),
        (b"]2.", "instruction b'2'"),
        (b"K\x01K\x02b.", "cannot take a state"),
        (b"K\x01K\x02a.", "no attribute 'append'"),
        (b"](K\x01K\x02u.", "cannot take items"),
        (b"K\x01)R.", "only a named object can be called"),
        (b"K\x01", "^$"),
    ],
)
def test_instructions_without_a_place_in_a_checkpoint_are_refused(program, message):
    """Oracle: what `torch.save` writes."""
    with pytest.raises((ValueError, *DAMAGE), match=message):
        run(program)


def test_a_huge_memo_index_costs_nothing():
    """Oracle: Python's own pickle reserves memory for every smaller index; here it is one entry."""
    assert run(b"K\x07r" + struct.pack("<I", 2**32 - 1) + b"j" + struct.pack("<I", 2**32 - 1) + b"\x86.") == (7, 7)


def test_a_tensor_is_a_view_inside_its_storage():
    """Oracle: PyTorch's slicing."""
    storage = torch.arange(12.0)
    assert torch.equal(rebuild_tensor(storage, 1, (2, 3), (6, 2)), storage.view(2, 6)[:, 1::2])
    assert rebuild_tensor(storage, 3, (), ()).item() == 3
    assert rebuild_tensor(storage, 0, (0, 5), (5, 1)).shape == (0, 5)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        *((0, (13,), (1,)), (1, (12,), (1,)), (0, (2, 6), (7, 1)), (12, (), ()), (0, (2**62,), (0,))),
        *((0, (4,), (-1,)), (-1, (4,), (1,)), (0, (4,), (1, 1)), (0, (1,) * 9, (1,) * 9), (0, (1.0,), (1,))),
    ],
)
def test_a_tensor_that_reaches_out_of_its_storage_is_refused(offset, size, stride):
    """Oracle: the last number's place, by hand, against twelve."""
    with pytest.raises(ValueError, match="reaches out of its storage|must be"):
        rebuild_tensor(torch.arange(12.0), offset, size, stride)


def test_everything_torch_saves_of_tensors_comes_back(tmp_path):
    """Oracle: `torch.load`, for every type, for views, for shared, empty and single numbers, for parameters."""
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8)
    given = {
        **{str(kind): (10 * base).to(kind) for kind in (*kinds, torch.uint8, torch.bool)},
        "view": base[1:3, ::2],
        "turned": base.T,
        "number": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base),
        "same": [base, base[0]],
    }
    path = tmp_path / "tensors.pt"
    torch.save(given, path)
    found, expected = pt_file.read(path), torch.load(path, weights_only=True)
    assert list(found) == list(expected)
    for key in set(given) - {"same"}:
        assert found[key].dtype == expected[key].dtype
        assert torch.equal(found[key], expected[key])
    assert found["same"][0].data_ptr() == found["same"][1].data_ptr()


def test_the_root_folder_may_have_any_name(tmp_path, archive_of):
    """Oracle: the content, under a root that is neither the file's name nor `archive`."""
    path = archive_of({"epoch": 3}, name="renamed.pt")
    assert pt_file.read(path) == {"epoch": 3}


def storage_program(kind="FloatStorage", key="0", count=4):
    """A program that leaves the flat tensor of storage `key`."""
    kind_word, *words = (len(word).to_bytes(4, "little") + word.encode() for word in ("storage", key, "cpu"))
    name = f"ctorch\n{kind}\n".encode()
    return b"(X" + kind_word + name + b"X" + words[0] + b"X" + words[1] + b"K" + bytes([count]) + b"tQ."


def test_a_storage_is_read_by_its_key(archive_of):
    """Oracle: four numbers by hand, little-endian."""
    path = archive_of(storage_program(), **{"0": torch.arange(4.0).numpy().tobytes(), "byteorder": b"little"})
    assert pt_file.read(path).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("program", "entries", "message"),
    [
        (storage_program(count=5), {"0": bytes(16)}, "must hold 5 numbers of torch.float32, got 16 bytes"),
        (storage_program(key="../data.pkl"), {"0": bytes(16)}, "no item named"),
        (storage_program(kind="Tensor"), {"0": bytes(16)}, "foreign object 'torch.Tensor'"),
        (storage_program(), {"0": bytes(16), "byteorder": b"big"}, "not little-endian"),
        (storage_program(), {"constants.pkl": b"."}, "is a TorchScript archive; give the training checkpoint"),
        (b"]" * (pt_file.MAX_PICKLE_BYTES + 1), {}, "must have at most 8388608 bytes, got 8388609"),
    ],
)
def test_malformed_archives_are_refused_in_one_line(program, entries, message, archive_of):
    """Oracle: the message names the file and what is wrong."""
    path = archive_of(program, **entries)
    with pytest.raises(ValueError, match=message) as error:
        pt_file.read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_zip_bomb_is_refused_before_it_unfolds(archive_of):
    """Oracle: torch never compresses; 200 MB of zeros in a file of 200 kB are not even begun."""
    path = archive_of(storage_program(), compression=zipfile.ZIP_DEFLATED, **{"0": bytes(200 * 2**20)})
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match="holds compressed entries, which torch.save never writes"):
        pt_file.read(path)


def test_entries_that_claim_more_than_the_file_holds_are_refused(archive_of):
    """Oracle: the sum of the sizes against the file's, with one size in the directory raised by hand."""
    path = archive_of(storage_program(), **{"0": bytes(16)})
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02") + 20  # compressed and plain size of the last entry
    data[at : at + 8] = (2**30).to_bytes(4, "little") * 2
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its entries claim more bytes than the"):
        pt_file.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"not\na checkpoint", "not a complete zip archive as torch >= 1.6 writes it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "is a web page, no checkpoint"),
        (b"PK\x03\x04 and no more", "was cut short on its way"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"weight": {}}', "is a safetensors file"),
        (b"\x80\x02}q\x00.", "was written by torch before 1.6, or by pickle"),
        (b"\x08\x08\x12\x07pytorch", "is an ONNX file"),
        (b"\x1f\x8b\x08", "is compressed by gzip"),
        (b"\x89HDF\r\n", "is an HDF5 file"),
    ],
)
def test_what_is_no_archive_is_called_by_its_usual_cause(content, message, tmp_path):
    """Oracle: how each kind of file starts, by its specification; the message names the file."""
    path = tmp_path / "given.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        pt_file.read(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("member", "message"), [("notes.txt", "this one holds 0$"), ("a.npy", "it is a NumPy archive")]
)
def test_other_archives_are_refused(member, message, tmp_path):
    """Oracle: the message; a folder is no archive either."""
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as other:
        other.writestr(member, "no pickle")
    with pytest.raises(ValueError, match=f"holds one data.pkl, .*{message}"):
        pt_file.read(tmp_path / "other.pt")
    with pytest.raises(ValueError, match="is a folder; give a checkpoint in it"):
        pt_file.read(tmp_path)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    """Oracle: a zip archive is read from its end, so that every cut is seen."""
    path = tmp_path / "whole.pt"
    torch.save({"weight": torch.ones(50)}, path)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="whole.pt: "):
            pt_file.read(path)


def test_random_damage_never_escapes_as_anything_but_the_one_line_error(archive_of):
    """Oracle: whatever comes of 500 damaged pickles, it is a value or a ValueError."""
    generator = random.Random(0)
    program = bytearray(storage_program())
    refused = 0
    for _ in range(500):
        damaged = bytearray(program)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path = archive_of(bytes(damaged), **{"0": bytes(16)})
        try:
            pt_file.read(path)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
    assert refused > 250
