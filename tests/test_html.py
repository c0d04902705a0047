"""Does a notebook's page show every picture with nothing run and no network?"""

from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from traitlets.config import JSONFileConfigLoader

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


@pytest.fixture(scope="module")
def exporter():
    """The exporter of `make html`."""
    return HTMLExporter(config=JSONFileConfigLoader("html.json", str(FOLDER)).load_config())


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_page_holds_every_stored_picture(exporter, path):
    """Oracle: the base64 of each image/png in the file; widgets' too, in whose place nbconvert alone would put a script."""
    notebook = nbformat.read(path, as_version=4)
    page, _ = exporter.from_notebook_node(notebook)
    data = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    pictures = [one["image/png"].replace("\n", "") for one in data if "image/png" in one]
    plain = page.replace("\n", "")
    assert pictures and all(picture in plain for picture in pictures)
    assert '<script type="application/vnd.jupyter.widget-view+json">' not in page
