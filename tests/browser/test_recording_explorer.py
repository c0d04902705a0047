"""Does every control of notebook 07's explorer change its pictures in a browser?"""

import pytest


@pytest.fixture
def notebook(lab):
    """Notebook 07, run from top to bottom."""
    lab.open("07_explore")
    lab.run_all()
    assert lab.outputs("error") == 0 and lab.shows_no_widget_error()
    return lab


def dropdown(lab, name):
    """The list of that name."""
    return lab.page.locator(f".jp-OutputArea .widget-dropdown:has(label:text-is('{name}')) select")


def test_every_control(notebook, root):
    """Oracle: after each control's turn those pictures have another address that depend on it, the layer's (0), the
    detections' (1) or both; a wrong file leaves its sentence; what was saved still shows."""
    page, pictures = notebook.page, notebook.pictures()
    assert len(pictures) == 2
    page.click(".jp-OutputArea button:text-is('cv3'):visible >> nth=0")  # a layer
    layer = notebook.wait_for_change(pictures, places=[0])
    assert layer[1] == pictures[1], "the detections do not depend on the layer"
    page.click(".jp-OutputArea button:has-text(' flip') >> nth=-1")  # a weight
    pictures = notebook.wait_for_change(layer, places=[0])
    handle = page.locator(".jp-OutputArea .widget-slider .noUi-handle")
    handle.focus()
    handle.press("PageDown")
    pictures = notebook.wait_for_change(pictures, places=[0])
    for name, places in (("EMA", [0, 1]), ("QC", [1]), ("EMA", [0, 1])):
        page.click(f".jp-OutputArea button:text-is('{name}')")
        pictures = notebook.wait_for_change(pictures, places=places)
    dropdown(notebook, "picture").select_option("8")
    pictures = notebook.wait_for_change(pictures, places=[1])
    dropdown(notebook, "beside it").select_option("mine")
    pictures = notebook.wait_for_change(pictures, places=[0])
    for path in ("no such file.npz", str(root / "data/recordings/quick-3bit-ema.npz")):
        field = page.locator(".jp-OutputArea .widget-text input")
        field.fill(path)
        field.press("Enter")
        pictures = notebook.wait_for_change(pictures, places=[0])
    dropdown(notebook, "run").select_option("quick 3 bit")
    notebook.wait_for_change(pictures, places=[0])
    assert notebook.outputs("error") == 0 and notebook.shows_no_widget_error()
    count = notebook.shown_count()
    notebook.reopen("07_explore")
    notebook.wait_for_shown(count)
