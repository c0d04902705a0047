"""Is a recording in a file the recording, without torch, and honest about what is missing?"""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from oscillab.recording import npz
from oscillab.recording.recording import Recording
from oscillab.recording.tables import flip_rate, layers, oscillating_share


@pytest.fixture
def recording(fakes, random_states):
    """121 ticks of 12 weights that walk about, and of a layer that rests."""
    return fakes.run(random_states(122, 12, -4, 3), trajectories=3)[1]


def test_save_then_open_is_the_same(recording, tmp_path):
    """Oracle: the recording itself, and its tables."""
    opened = Recording.open(recording.save(tmp_path / "run.npz"))
    assert opened.meta == recording.meta and list(opened.arrays) == list(recording.arrays)
    for name, array in recording.arrays.items():
        assert opened[name].dtype == array.dtype
        np.testing.assert_array_equal(opened[name], array)
    assert layers(opened).equals(layers(recording))
    assert repr(opened) == "Recording(2 layers, 14 weights, 121 ticks)"


def test_opens_without_torch(recording, tmp_path, root):
    """Oracle: another Python that cannot import torch prints the numbers that this one has."""
    path = recording.save(tmp_path / "run.npz")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import oscillab\n"
        "from oscillab.recording import tables\n"
        f"recording = oscillab.Recording.open({str(path)!r})\n"
        "print(tables.oscillating_share(recording), tables.flip_rate(recording), len(tables.layers(recording)))"
    )
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == [str(oscillating_share(recording)), str(flip_rate(recording)), "2"]


def test_a_file_cut_short_gives_its_readable_part(recording, tmp_path):
    """Oracle: the arrays that stand whole in front of the cut; the warning names one that is lost, and using it is an error."""
    path = recording.save(tmp_path / "run.npz")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"frequency.npy") + 10])
    with pytest.warns(UserWarning, match="run.npz: damaged or cut short; missing frequency, "):
        opened = Recording.open(path)
    np.testing.assert_array_equal(opened["layer_flip_count"], recording["layer_flip_count"])
    assert flip_rate(opened) == flip_rate(recording)
    with pytest.raises(ValueError, match="the recording holds no 'frequency'; it holds step, "):
        oscillating_share(opened)


def test_a_whole_file_gives_no_warning(recording, tmp_path):
    """Oracle: warnings are errors here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Recording.open(recording.save(tmp_path / "run.npz"))


def test_files_that_are_no_recording(recording, tmp_path):
    """Oracle: one line each that names the file and says what is wrong."""
    path = tmp_path / "run.npz"
    with pytest.raises(ValueError, match=r"run.npz: cannot be read \(No such file"):
        Recording.open(path)
    for content in (b"", b"text", recording.save(path).read_bytes()[:60]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="run.npz: not a recording, or cut short"):
            Recording.open(path)
    np.savez(path, step=np.arange(3))
    with pytest.raises(ValueError, match="run.npz: not a recording"):
        Recording.open(path)
    npz.write(path, recording.meta | {"version": 2}, {})
    with pytest.raises(ValueError, match="run.npz: written by a newer oscillab .version 2, this one reads up to 1"):
        Recording.open(path)


def test_a_failed_save_leaves_the_former_file(recording, tmp_path, monkeypatch):
    """Oracle: the former file's bytes, one line of error, and no half-written file beside it."""
    path = recording.save(tmp_path / "run.npz")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(npz, "npy", full)
    with pytest.raises(OSError, match="run.npz: No space left on device"):
        recording.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_layers_by_name(recording):
    """Oracle: by hand: the stem's 12 weights stand in front of the block's 2."""
    assert recording.layer_names == ["stem", "block.1"]
    assert recording.weights_of("stem") == slice(0, 12) and recording.weights_of("block.1") == slice(12, 14)
    with pytest.raises(ValueError, match="unknown layer 'stm'; the recording has 2, among them stem"):
        recording.weights_of("stm")


def test_thinned_keeps_the_counts(recording):
    """Oracle: sums over every 7 rows (119 of 121 ticks), and the same numbers per weight."""
    thin = recording.thinned(every=7, windows=False, trajectories=False)
    assert thin.steps.tolist() == list(range(0, 120, 7))
    counts = recording["layer_flip_count"]
    np.testing.assert_array_equal(thin["layer_flip_count"][1:], counts[1:120].reshape(17, 7, 2).sum(1))
    np.testing.assert_array_equal(thin["step_size"], recording["step_size"][::7])
    np.testing.assert_array_equal(thin["frequency"], recording["frequency"])
    assert not {"window_flip_count", "latent_weight", "sample_index"} & thin.arrays.keys()
    assert layers(thin)["flip_rate"][0] == pytest.approx(counts[1:120, 0].sum() / 119 / 12)
    with pytest.raises(ValueError, match="every must be 1 or more, got 0"):
        recording.thinned(every=0)
