"""The explorer of recordings as an object: what is set, what is drawn, and what it says where it cannot."""

import io

import numpy as np
import pytest
from PIL import Image

from oscillab.plot import explorer as explorer_module
from oscillab.plot import widgets
from oscillab.plot.explorer import RecordingExplorer
from oscillab.plot.images import FORMAT, RecordedDetections

NAMES = "draw_layer_view", "draw_detections", "text_figure"
pytestmark = pytest.mark.usefixtures("quick")


def detections_of(layers):
    """Detections of a network with these layers: one picture, one object, each method another score."""
    seen = {
        method: {"0": [[2.0, 2, 9, 9, 0.3 + 0.1 * i, 0]]}
        for i, method in enumerate(("fp32", "lsq", "ema", "lsq+qc", "ema+qc"))
    }
    content = {"format": FORMAT, "network": "yolov5n", "layers": list(layers), "names": ["disc"]}
    return RecordedDetections(content | {"truth": {"0": [[2.0, 2, 9, 9, 0]]}, "methods": seen})


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of every drawing: of a layer, of detections, and every sentence in their place."""
    calls = {"layer": [], "detections": [], "sentence": []}

    def note(kind, draw):
        def noted(*args, **kwargs):
            calls[kind].append((args, kwargs))
            return draw(*args, **kwargs)

        return noted

    layer, detections, sentence = (getattr(explorer_module, name) for name in NAMES)
    monkeypatch.setattr(explorer_module, "draw_layer_view", note("layer", layer))
    monkeypatch.setattr(explorer_module, "draw_detections", note("detections", detections))
    for room in (widgets, explorer_module):
        monkeypatch.setattr(room, "text_figure", note("sentence", sentence))
    return calls


@pytest.fixture
def explorer(drawn, live, average):
    """An explorer of one run, live and averaged, with detections of its network."""
    detections = detections_of(live.layer_names)
    return RecordingExplorer({"run": {"lsq": live, "ema": average}}, detections=detections, image_of=picture)


def picture(number):
    """A grey picture."""
    return np.full((16, 16, 3), 90, np.uint8)


def last(calls):
    """The last call's positional and named arguments."""
    return calls[-1]


def test_a_click_on_a_layer_and_a_weight_reaches_the_drawing(explorer, drawn):
    """Oracle: the arguments of the drawing: the clicked layer with its most flipping weight, then the clicked weight."""
    explorer.network.buttons["last"].click()
    (runs, layer), named = last(drawn["layer"])
    assert layer == "last" and list(runs) == ["run"]
    other = [key for key in explorer.weights.buttons if key != explorer.weights.value][0]
    before = explorer.images[0].value
    explorer.weights.buttons[other].click()
    assert last(drawn["layer"])[1]["weight"] == int(other) != named["weight"]
    assert explorer.images[0].value != before


def test_the_switches_choose_recording_and_method(explorer, drawn, live, average):
    """Oracle: EMA shows the average's recording; QC changes the method of the detections alone."""
    assert last(drawn["layer"])[0][0]["run"] == ("lsq", live)
    explorer.ema.value = True
    assert last(drawn["layer"])[0][0]["run"] == ("ema", average)
    count = len(drawn["layer"])
    explorer.qc.value = True
    assert last(drawn["detections"])[1]["chosen"] == "ema+qc" and len(drawn["layer"]) == count
    explorer.ema.value = False
    assert "lsq+qc" in last(drawn["detections"])[1]["methods"]


def test_the_step_colours_the_network(explorer):
    """Oracle: the tooltips tell each layer's rate over the fifty steps before; another step, another rate."""
    before = {key: button.tooltip for key, button in explorer.network.buttons.items()}
    explorer.step.value = 10
    after = {key: button.tooltip for key, button in explorer.network.buttons.items()}
    assert before != after and after["middle"].endswith("% of a layer's weights flip in a step")


def test_a_file_of_ones_own(explorer, drawn, live, tmp_path):
    """Oracle: it is shown under its name; a wrong one leaves its sentence and everything goes on working."""
    explorer.path.value = str(live.save(tmp_path / "mine.npz"))
    assert explorer.run.value == "mine" and set(last(drawn["layer"])[0][0]) == {"mine"}
    explorer.path.value = str(tmp_path / "none.npz")
    assert "none.npz: cannot be read" in last(drawn["sentence"])[0][0]
    explorer.ema.value = True
    assert drawn["sentence"][-2][0][0].startswith("mine holds no recording of EMA")
    explorer.ema.value = False
    count = len(drawn["sentence"])
    explorer.beside.value = "run"
    assert set(last(drawn["layer"])[0][0]) == {"mine", "run"} and len(drawn["sentence"]) == count


def test_detections_are_those_of_their_run_alone(explorer, drawn, live, average, tmp_path):
    """Oracle: by hand: the same network recorded again, opened or given beside, has none; the first run has them again."""
    explorer.open_file(live.save(tmp_path / "mine.npz"))
    assert "no detections were recorded for mine; those of run" in last(drawn["sentence"])[0][0]
    count = len(drawn["detections"])
    explorer.qc.value = True
    assert len(drawn["detections"]) == count
    explorer.run.value = "run"
    assert len(drawn["detections"]) == count + 1
    both = RecordingExplorer({"a": live, "b": live}, detections=detections_of(live.layer_names), image_of=picture)
    both.run.value = "b"
    assert "no detections were recorded for b; those of a" in last(drawn["sentence"])[0][0]
    late = RecordingExplorer({}, detections=detections_of(live.layer_names), image_of=picture)
    late.open_file(tmp_path / "mine.npz")
    assert "no detections were recorded for mine" in last(drawn["sentence"])[0][0]


def test_a_file_is_labelled_by_its_name(explorer, drawn, live, average, tmp_path):
    """Oracle: the names: an average is no LSQ, and a second `lsq.npz` does not take the place of the first."""
    explorer.open_file(average.save(tmp_path / "ema.npz"))
    for switch in (False, True):
        explorer.ema.value = switch
        assert last(drawn["layer"])[0][0] == {"ema": ("ema", explorer.recording())}
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        explorer.open_file(live.save(tmp_path / folder / "lsq.npz"))
    explorer.ema.value, explorer.beside.value = False, "lsq"
    assert [kind for kind, _ in last(drawn["layer"])[0][0].values()] == ["other/lsq", "lsq"]
    explorer.open_file(tmp_path / "other" / "lsq.npz")
    assert list(explorer.runs) == ["run", "ema", "lsq", "other/lsq"]


def test_what_cannot_be_shown_is_said(drawn, live, make_recording, tmp_path):
    """Oracle: the sentences of the documented cases: no recording, another network, unlike layers, no trajectory."""
    empty = RecordingExplorer({})
    assert drawn["sentence"][0][0][0].startswith("no recording: open a file") and repr(empty).endswith("(no recording)")
    empty.path.value = str(live.save(tmp_path / "mine.npz"))
    assert set(last(drawn["layer"])[0][0]) == {"mine"} and "middle" in empty.network.buttons
    RecordingExplorer({"run": live}, detections=detections_of(["other"]), image_of=picture)
    assert "run records another network than the one whose detections these are" in last(drawn["sentence"])[0][0]
    two = RecordingExplorer({"run": live, "part": make_recording(names=("first", "last"))})
    two.beside.value = "part"
    assert "run and part cannot be compared" in last(drawn["sentence"])[0][0]
    RecordingExplorer({"run": live.thinned(trajectories=False)})
    assert any("has a recorded trajectory" in args[0] for args, _ in drawn["sentence"])


def test_it_shows_both_pictures_where_no_kernel_runs(explorer):
    """Oracle: a stable text; a picture as high as both at four fifths."""
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == "RecordingExplorer(run)"
    heights = [Image.open(io.BytesIO(one.value)).height for one in explorer.images]
    assert Image.open(io.BytesIO(explorer.png())).height == sum(heights) * 4 // 5


def test_it_says_which_weights_can_be_picked(explorer, live):
    """Oracle: the recording's own numbers of weights and of sampled ones."""
    total, sampled = live.weight_counts[live.index(explorer.network.value)], len(explorer.weights.buttons)
    assert f"Of {total:,} weights these {sampled} have a recorded trajectory" in explorer.weights.legend.value


def test_one_recording_alone_is_explored(live):
    """Oracle: its layers in the map, under a name of its own."""
    explorer = RecordingExplorer(live)
    assert repr(explorer) == "RecordingExplorer(recording)" and "middle" in explorer.network.buttons
