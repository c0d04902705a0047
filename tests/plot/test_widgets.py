"""The Explorer as an object: set a control, see what is drawn. The browser and nbval see the rest."""

from base64 import b64decode

import ipywidgets
import pytest

from oscillab import toy
from oscillab.plot.style import new_figure
from oscillab.plot.widgets import OF_A_LAYER, Explorer, LayerExplorer, ToyExplorer

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def explorer():
    """An Explorer of one number that refuses negative ones."""

    def draw(number):
        if number < 0:
            raise ValueError("number must be 0 or more")
        figure, axes = new_figure(3, 2)
        axes[0, 0].plot([0, number])
        return figure

    return Explorer(draw, {"number": ipywidgets.IntSlider(1, -3, 3)})


def test_a_control_draws_anew(explorer):
    """Oracle: the picture changes, to a sentence too, and back, and another Explorer's stays; it goes on working."""
    other, before = Explorer(explorer.draw, {"number": ipywidgets.IntSlider(1, -3, 3)}), explorer.image.value
    seen = {before}
    for number in (2, -1):
        explorer.controls["number"].value = number
        seen.add(explorer.image.value)
    assert len(seen) == 3 and bytes(explorer.image.value).startswith(b"\x89PNG")
    explorer.controls["number"].value = 1
    assert explorer.image.value == before == other.image.value and other.values() == {"number": 1}


def test_it_shows_where_no_kernel_runs(explorer):
    """Oracle: the bundle holds the widget, a stable text, and the very picture."""
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == "Explorer(number=1)" == repr(explorer)
    assert b64decode(bundle["image/png"]) == explorer.image.value
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_toy_explorer_runs_the_toy_with_its_knobs():
    """Oracle: the arguments that reach the simulation."""
    calls = []

    def simulate(target, **options):
        calls.append((target, options))
        return toy.one_weight(target, **options)

    explorer = ToyExplorer(simulate, bits=3, learning_rate=0.1, target=0.2, steps=50)
    explorer.controls["target"].value = -0.4
    explorer.controls["bits"].value = 4
    assert [(target, o["bits"], o["steps"]) for target, o in calls] == [(0.2, 3, 50), (-0.4, 3, 50), (-0.4, 4, 50)]
    assert calls[0][1]["learning_rate"] == pytest.approx(0.1)
    assert repr(explorer).startswith("ToyExplorer(bits=4, ")


def test_every_picture_of_a_layer(live, average):
    """Oracle: six different pictures, and another for another layer; its text names both settings."""
    explorer = LayerExplorer({"lsq": live, "ema": average}, layer="middle")
    seen = {explorer.image.value}
    assert repr(explorer) == "LayerExplorer(layer='middle', picture='latent weights')"
    for picture in OF_A_LAYER:
        explorer.controls["picture"].value = picture
        seen.add(explorer.image.value)
    explorer.controls["layer"].value = "first"
    assert len(seen | {explorer.image.value}) == len(OF_A_LAYER) + 1


def test_a_layer_explorer_names_what_it_does_not_know(live):
    """Oracle: the documented errors."""
    with pytest.raises(ValueError, match="unknown layer 'midle'; .*middle"):
        LayerExplorer({"lsq": live}, layer="midle")
    with pytest.raises(ValueError, match="picture must be one of latent weights, .*, got 'photo'"):
        LayerExplorer({"lsq": live}, picture="photo")
