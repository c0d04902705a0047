"""Oracles: `torch.load` for honest files; for others: one line that names the file, and an end."""

import random
import zipfile

import pytest
import torch

from oscillab.yolo import archive


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
    found, expected = archive.read(path), torch.load(path, weights_only=True)
    assert list(found) == list(expected)
    for key in set(given) - {"same"}:
        assert found[key].dtype == expected[key].dtype
        assert torch.equal(found[key], expected[key])
    assert found["same"][0].data_ptr() == found["same"][1].data_ptr()


def test_the_root_folder_may_have_any_name(tmp_path, archive_of):
    """Oracle: the content, under a root that is neither the file's name nor `archive`."""
    path = archive_of({"epoch": 3}, name="renamed.pt")
    assert archive.read(path) == {"epoch": 3}


def storage_program(kind="FloatStorage", key="0", count=4):
    """A program that leaves the flat tensor of storage `key`."""
    kind_word, *words = (len(word).to_bytes(4, "little") + word.encode() for word in ("storage", key, "cpu"))
    name = f"ctorch\n{kind}\n".encode()
    return b"(X" + kind_word + name + b"X" + words[0] + b"X" + words[1] + b"K" + bytes([count]) + b"tQ."


def test_a_storage_is_read_by_its_key(archive_of):
    """Oracle: four numbers by hand, little-endian."""
    path = archive_of(storage_program(), **{"0": torch.arange(4.0).numpy().tobytes(), "byteorder": b"little"})
    assert archive.read(path).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("program", "entries", "message"),
    [
        (storage_program(count=5), {"0": bytes(16)}, "must hold 5 numbers of torch.float32, got 16 bytes"),
        (storage_program(key="../data.pkl"), {"0": bytes(16)}, "no item named"),
        (storage_program(kind="Tensor"), {"0": bytes(16)}, "foreign object 'torch.Tensor'"),
        (storage_program(), {"0": bytes(16), "byteorder": b"big"}, "not little-endian"),
        (storage_program(), {"constants.pkl": b"."}, "is a TorchScript archive; give the training checkpoint"),
        (b"]" * (archive.MAX_PICKLE_BYTES + 1), {}, "must have at most 8388608 bytes, got 8388609"),
    ],
)
def test_malformed_archives_are_refused_in_one_line(program, entries, message, archive_of):
    """Oracle: the message names the file and what is wrong."""
    path = archive_of(program, **entries)
    with pytest.raises(ValueError, match=message) as error:
        archive.read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_zip_bomb_is_refused_before_it_unfolds(archive_of):
    """Oracle: torch never compresses; 200 MB of zeros in a file of 200 kB are not even begun."""
    path = archive_of(storage_program(), compression=zipfile.ZIP_DEFLATED, **{"0": bytes(200 * 2**20)})
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match="holds compressed entries, which torch.save never writes"):
        archive.read(path)


def test_entries_that_claim_more_than_the_file_holds_are_refused(archive_of):
    """Oracle: the sum of the sizes against the file's, with one size in the directory raised by hand."""
    path = archive_of(storage_program(), **{"0": bytes(16)})
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02") + 20  # compressed and plain size of the last entry
    data[at : at + 8] = (2**30).to_bytes(4, "little") * 2
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its entries claim more bytes than the"):
        archive.read(path)


def test_files_that_are_no_archive_are_refused_in_one_line(tmp_path):
    """Oracle: the message names the file."""
    (tmp_path / "text.pt").write_text("not\na checkpoint")
    (tmp_path / "empty.pt").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as other:
        other.writestr("notes.txt", "no pickle")
    for name, message in {
        "absent.pt": "no such file",
        "text.pt": "not a complete zip archive as torch >= 1.6 writes it",
        "empty.pt": "not a complete zip archive",
        "other.pt": "holds one data.pkl, this one holds 0",
        ".": "is a folder; give a checkpoint in it",
    }.items():
        with pytest.raises(ValueError, match=message) as error:
            archive.read(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    """Oracle: a zip archive is read from its end, so that every cut is seen."""
    path = tmp_path / "whole.pt"
    torch.save({"weight": torch.ones(50)}, path)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="whole.pt: "):
            archive.read(path)


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
            archive.read(path)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
    assert refused > 250
