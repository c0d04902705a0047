"""Oracles: Python's own pickle for what is allowed; for what is not: nothing happens, soon, and one line says why."""

import argparse
import collections
import os
import pathlib
import pickle
import struct
import sys

import pytest
import torch

from oscillab.yolo.unpickle import Inert, Machine, rebuild_tensor


def run(program, storage=None):
    """What the machine makes of a program."""
    return Machine(storage or (lambda identity: identity), {"torch.FloatStorage"}).run(program)


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
    with pytest.raises((ValueError, TypeError)) as error:
        run(program)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"(i__main__\nthing\n.", "instruction b'i'"),
        (b"\x82\x01.", "instruction b'.x82'"),
        (b"]2.", "instruction b'2'"),
        (b"K\x01K\x02b.", "cannot take a state"),
        (b"K\x01K\x02a.", "cannot be appended to"),
        (b"](K\x01K\x02u.", "cannot take items"),
        (b"K\x01)R.", "only a named object can be called"),
        (b"K\x01", "ends before its STOP"),
    ],
)
def test_instructions_without_a_place_in_a_checkpoint_are_refused(program, message):
    """Oracle: what `torch.save` writes."""
    with pytest.raises(ValueError, match=message):
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
