"""Does a notebook's page show every picture with nothing run and no network, and stay small?"""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def pages():
    """The script notebooks/pages.py as a module."""
    spec = importlib.util.spec_from_file_location("pages", FOLDER / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_page_holds_every_stored_picture(pages, path):
    """Oracle: the base64 of each image/png in the file, widgets' too; no script, and nothing fetched from anywhere."""
    notebook = nbformat.read(path, as_version=4)
    data = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    pictures = [one["image/png"].replace("\n", "") for one in data if "image/png" in one]
    page = pages.page(notebook)
    plain = page.replace("\n", "")
    assert pictures and all(picture in plain for picture in pictures)
    assert plain.count("<img") == len(pictures)
    assert "<script" not in page and not re.search(r"""(?:src|@import|url)\s*[=(]\s*["']?(?:https?:)?//""", page)
    assert len(page.encode()) <= 500 * 1024


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pages_link_to_pages(pages, path):
    """Oracle: the notebook's own links; every one to another notebook leads to that notebook's page."""
    notebook = nbformat.read(path, as_version=4)
    wanted = {name for cell in notebook.cells for name in re.findall(r"\]\((\d\d_\w+)\.ipynb\)", cell.source)}
    page = pages.page(notebook)
    assert wanted and all(f'href="{name}.html"' in page for name in wanted) and not re.search(r'href="[^"]*ipynb', page)


def test_code_can_be_read_on_light_and_on_dark_paper(pages):
    """Oracle: WCAG 2's contrast of at least 4.5 (level AA) between code's paper and the colour of every word in it."""
    light, dark = pages.style().split("@media screen", 1)
    papers = re.findall(r"--code: (#\w{6})", pages.style())
    used = set()
    for path in NOTEBOOKS:
        used |= set(re.findall(r'<span class="(\w{1,2})">', pages.page(nbformat.read(path, as_version=4))))
    assert {"c1", "kn", "mi", "s2"} <= used and len(papers) == 2
    for style, paper in zip((light, dark), papers, strict=True):
        colors = dict(re.findall(r"\.highlight \.(\w+) \{ color: (#\w{6})", style))
        faint = {name: colors[name] for name in used & set(colors) - {"w"} if contrast(colors[name], paper) < 4.5}
        assert not faint, f"on {paper}: {faint}"


def contrast(one, other):
    """WCAG 2's ratio of two colours' relative luminances, 1 to 21."""
    light = []
    for color in (one, other):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        light.append(sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_a_page_that_is_too_large_is_named(pages, tmp_path, capsys):
    """Oracle: a notebook with 600 KB of output fails, one of a few lines does not."""
    small = [new_markdown_cell("# A title & more"), new_code_cell("1", outputs=[new_output("stream", text="1\n")])]
    nbformat.write(new_notebook(cells=small), tmp_path / "small.ipynb")
    assert pages.main(tmp_path, tmp_path / "out") == 0
    assert "<title>A title &amp; more</title>" in (tmp_path / "out" / "small.html").read_text()
    large = [*small, new_code_cell("2", outputs=[new_output("stream", text="x" * 600_000)])]
    nbformat.write(new_notebook(cells=large), tmp_path / "large.ipynb")
    assert pages.main(tmp_path, tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "large.html" in told and "a page may have 500 KB" in told
