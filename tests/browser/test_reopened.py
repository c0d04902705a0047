"""Does a notebook show its widgets' pictures when it is opened and nothing has run?"""

from pathlib import Path

import nbformat
import pytest

VIEW = "application/vnd.jupyter.widget-view+json"
FOLDER = Path(__file__).resolve().parents[2] / "notebooks"


def with_widgets():
    """Name -> the number of stored outputs that have a picture, of every notebook with a widget."""
    found = {}
    for path in sorted(FOLDER.glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        data = [output.data for cell in cells for output in cell.get("outputs", []) if "data" in output]
        if any(VIEW in one for one in data):
            found[path.stem] = sum("image/png" in one for one in data)
    return found


def test_there_are_such_notebooks():
    """Oracle: those that the course's table says have a live picture or an explorer."""
    assert {"01_what_is_an_oscillation", "02_instrument_a_layer", "03_train_ema_qat", "07_explore"} <= set(
        with_widgets()
    )


@pytest.mark.parametrize("kernel", [False, True], ids=["no kernel", "a kernel that has run nothing"])
@pytest.mark.parametrize("name", with_widgets())
def test_every_picture_of_a_committed_notebook(lab, name, kernel):
    """Oracle: as many pictures in the page as there are outputs with image/png in the file, and no widget's error."""
    lab.open(name, kernel=kernel)
    lab.wait_for_shown(with_widgets()[name])
    lab.page.wait_for_timeout(1000)
    lab.wait_for_shown(with_widgets()[name])
    assert lab.shows_no_widget_error()
