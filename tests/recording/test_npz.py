"""Does a file give back what was written, and as much as it can when it was damaged?"""

import zipfile

import numpy as np
import pytest

from oscillab.recording import npz

ARRAYS = {
    "first": np.arange(5000, dtype=np.int64),
    "second": np.random.default_rng(0).random((50, 40)).astype(np.float32),
    "empty": np.zeros((0, 3), np.uint8),
    "last": np.array([True, False]),
}
META = {"format": "a test", "deep": {"list": [1, None, "ü"]}}


@pytest.fixture
def file(tmp_path):
    """A written file."""
    npz.write(tmp_path / "file.npz", META, ARRAYS)
    return tmp_path / "file.npz"


def test_what_was_written_comes_back(file):
    """Oracle: the arrays themselves, with their types and shapes; numpy's own reader agrees."""
    meta, arrays, whole = npz.read(file)
    assert meta == META and whole and list(arrays) == list(ARRAYS)
    with np.load(file) as loaded:
        for name, array in ARRAYS.items():
            assert arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(arrays[name], array)
            np.testing.assert_array_equal(loaded[name], array)


def test_the_same_arrays_give_the_same_bytes(file, tmp_path):
    """Oracle: bytes; no time of writing is in them."""
    npz.write(tmp_path / "again.npz", META, ARRAYS)
    assert file.read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_every_cut_leaves_whole_arrays_only(file):
    """Oracle: an invariant over cuts of every length: what is read equals what was written, and is never said to be whole."""
    data, most = file.read_bytes(), -1
    for end in range(0, len(data), 97):
        file.write_bytes(data[:end])
        meta, arrays, whole = npz.read(file)
        assert not whole and meta in (None, META)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, ARRAYS[name])
        assert len(arrays) >= most  # a longer file never gives less
        most = len(arrays)
    assert most == len(ARRAYS)


def test_a_flipped_byte_costs_one_array(file):
    """Oracle: the check sum of the member that it lies in; the others come back."""
    data = bytearray(file.read_bytes())
    data[data.index(b"second.npy") + 200] ^= 0xFF
    file.write_bytes(data)
    meta, arrays, whole = npz.read(file)
    assert meta == META and not whole and sorted(arrays) == ["empty", "first", "last"]


def test_what_the_first_edition_appended_does_not_count(file):
    """Oracle: what was written before the first member in a folder."""
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("1/first.npy", npz.npy(np.arange(3)))
    meta, arrays, whole = npz.read(file)
    assert meta == META and whole and list(arrays) == list(ARRAYS)
    np.testing.assert_array_equal(arrays["first"], ARRAYS["first"])
