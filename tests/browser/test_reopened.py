"""Does a notebook show its widgets' pictures when it is opened and nothing has run?"""

import nbformat
import pytest

VIEW = "application/vnd.jupyter.widget-view+json"
NO_SESSION = "Cannot read properties of null (reading 'kernel')"  # jupyterlab-widgets 3.0.17 looks for one regardless


def notebooks_with_widgets(folder):
    """Name -> the number of stored outputs that have a picture, of every notebook with a widget."""
    found = {}
    for path in sorted(folder.glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        data = [output.data for cell in cells for output in cell.get("outputs", []) if "data" in output]
        if any(VIEW in one for one in data):
            found[path.stem] = sum("image/png" in one for one in data)
    return found


@pytest.mark.parametrize("kernel", [False, True], ids=["no kernel", "a kernel that has run nothing"])
def test_every_picture_of_the_committed_notebooks(lab, root, kernel):
    """Oracle: as many pictures in the page as there are outputs with image/png in the file, and no widget's error."""
    found = notebooks_with_widgets(root / "notebooks")
    assert found
    for name, count in found.items():
        lab.open(name, kernel=kernel)
        lab.page.wait_for_function(f"document.querySelectorAll('.jp-OutputArea img').length >= {count}")
        lab.page.wait_for_timeout(1000)
        assert lab.shown_count() == count, name
        assert lab.shows_no_widget_error(), name
    lab.errors[:] = [error for error in lab.errors if kernel or error != NO_SESSION]
