"""Is a recording in a file the recording, without torch, and honest about what is missing?"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from oscillab.recording import npz
from oscillab.recording.recorder import record
from oscillab.recording.recording import Recording
from oscillab.recording.schema import ARRAYS
from oscillab.recording.tables import flip_rate, layers, oscillating_share, periodicity, ranges, trajectories, weights


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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda meta, arrays: meta["layers"][1].update(name="stem"), "two layers are called 'stem'"),
        (lambda meta, arrays: meta["layers"][1].pop("low"), "layer 1 lacks 'low'"),
        (lambda meta, arrays: meta.update(step_count="9"), "'step_count' must be a whole number from 0, got '9'"),
        (lambda meta, arrays: meta["layers"][0].update(shape=[1, 13]), "must hold whole numbers of 1 axes"),
        (lambda meta, arrays: arrays["frequency"].__setitem__(3, np.nan), "'frequency' holds impossible values, nan"),
        (lambda meta, arrays: arrays["step"].__setitem__(3, 2), "'step' must ascend"),
        (lambda meta, arrays: arrays["flip_count"].__iadd__(1), "'flip_count' and 'layer_flip_count' do not add up"),
        (lambda meta, arrays: arrays.update(direction=arrays["direction"] * 1.0), "whole numbers .* it holds float64"),
        (
            lambda meta, arrays: arrays.update(position_count=arrays["position_count"][1:]),
            "must hold whole numbers of 1 axes",
        ),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(recording, tmp_path, change, said):
    """Oracle: one line with the file, the place and what is wrong; `benchmarks.fuzz_recordings` tries many more."""
    path = recording.save(tmp_path / "run.npz")
    meta, arrays, _ = npz.read(path)
    change(meta, arrays)
    npz.write(path, meta, arrays)
    with pytest.raises(ValueError, match=f"run.npz: damaged, or no recording: .*({said})") as caught:
        Recording.open(path)
    assert "\n" not in str(caught.value)


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


@pytest.fixture
def three_layers(fakes):
    """Three layers that move: of one step size a row, of other bits, and without a range."""
    net = torch.nn.Sequential(
        fakes.Layer(np.zeros((2, 5)), step_size=torch.tensor([0.5, 0.25])),
        fakes.Layer(np.zeros((3, 4)), bits=8),
        fakes.Layer(np.zeros((1, 7)), has_range=False),
    )
    optimizer, generator = torch.optim.SGD(net.parameters(), lr=0.0), torch.Generator().manual_seed(0)
    with record(net, optimizer, trajectories=4, ranges_every=3) as recorder:
        for _ in range(260):
            for layer in net:
                layer.weight.data += 0.1 * torch.randn(layer.weight.shape, generator=generator)
            optimizer.step()
    return recorder.recording()


@pytest.mark.parametrize("names", [["0"], ["2", "1"], ["2"], ["0", "1", "2"]])
def test_tables_of_some_layers(three_layers, names):
    """Oracle: the rows of the whole recording's tables that belong to these layers."""
    part = three_layers.thinned(layers=names)
    assert part.layer_names == sorted(names) and part.meta["tick_count"] == 260
    for table in (layers, ranges, periodicity):
        whole = table(three_layers)
        expected = whole[whole["layer"].isin(names)].reset_index(drop=True)
        assert (expected.empty and table(part).empty) or table(part).equals(expected), table.__name__
    for name in names:
        assert weights(part, name).equals(weights(three_layers, name))
        assert trajectories(part, name).equals(trajectories(three_layers, name))


def test_every_array_is_known(three_layers):
    """Oracle: a recording of a training; what is checked at opening holds all of its arrays."""
    assert three_layers.arrays.keys() <= ARRAYS.keys()
    part = three_layers.thinned(layers=["0"])
    assert part["window_flip_count"].shape == (2, 10) and part["step_sizes"].shape == (2, 2)
    assert part["window_flip_count"].sum() == three_layers["window_flip_count"][:, :10].sum() > 0


def test_patterns(three_layers):
    """Oracle: by hand; a pattern that matches nothing is an error in one line."""
    small = three_layers.thinned(layers=["[12]"], windows=False, trajectories=False)
    assert small.layer_names == ["1", "2"]
    assert not {"window_flip_count", "latent_weight", "sample_index"} & small.arrays.keys()
    with pytest.raises(ValueError, match=r"^no layer matches 'model.4.\*'; the recording has 0, 1, 2, ...$"):
        three_layers.thinned(layers=["model.4.*"])
