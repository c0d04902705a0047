"""Scripts beside the notebooks: pages without a kernel, students' copies, and settled files."""

import copy
import json
import re
from functools import lru_cache
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="session")
def pages(script):
    """The script notebooks/pages.py as a module."""
    return script("notebooks/pages.py")


@pytest.fixture(scope="session")
def settle(script):
    """The script notebooks/settle.py as a module."""
    return script("notebooks/settle.py")


@pytest.fixture(scope="session")
def student(script):
    """The script notebooks/student.py as a module."""
    return script("notebooks/student.py")


@lru_cache
def stored(path):
    """Return a notebook's page-to-be as it is in its file; it is read once."""
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="session")
def page_of(pages):
    """Return the page of a notebook's path, made once."""
    return lru_cache(lambda path: pages.page(copy.deepcopy(stored(path))))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_page_holds_every_stored_picture(page_of, path):
    """Oracle: the base64 of each image/png in the file, widgets' too; no script, and nothing fetched from anywhere."""
    data = [output.data for cell in stored(path).cells for output in cell.get("outputs", []) if "data" in output]
    pictures = [one["image/png"].replace("\n", "") for one in data if "image/png" in one]
    page = page_of(path)
    plain = page.replace("\n", "")
    assert pictures and all(picture in plain for picture in pictures)
    assert plain.count("<img") == len(pictures)
    assert "<script" not in page and not re.search(r"""(?:src|@import|url)\s*[=(]\s*["']?(?:https?:)?//""", page)
    assert len(page.encode()) <= 500 * 1024


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pages_link_to_pages(page_of, path):
    """Oracle: the notebook's own links; every one to another notebook leads to that notebook's page."""
    wanted = {name for cell in stored(path).cells for name in re.findall(r"\]\((\d\d_\w+)\.ipynb\)", cell.source)}
    page = page_of(path)
    assert wanted and all(f'href="{name}.html"' in page for name in wanted) and not re.search(r'href="[^"]*ipynb', page)


def test_code_can_be_read_on_light_and_on_dark_paper(pages, page_of):
    """Oracle: WCAG 2's contrast of at least 4.5 (level AA) between code's paper and the colour of every word in it."""
    light, dark = pages.style().split("@media screen", 1)
    papers = re.findall(r"--code: (#\w{6})", pages.style())
    used = set()
    for path in NOTEBOOKS:
        used |= set(re.findall(r'<span class="(\w{1,2})">', page_of(path)))
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


def test_a_students_copy_holds_no_solution(student, tmp_path):
    """Oracle: the solutions' own lines, none of which is in the copy; the other cells are as they were but for `data`."""
    path = NOTEBOOKS[1]
    original = stored(path)
    nbformat.write(original, tmp_path / path.name)
    assert student.main(tmp_path) == 0
    made = nbformat.read(tmp_path / "student" / path.name, as_version=4)
    for cell, kept in zip(original.cells, made.cells, strict=True):
        if "solution" in cell.metadata.get("tags", []):
            assert kept.source == "# your solution"
        else:
            assert kept.source == cell.source.replace("../data/", "../../data/")
        assert not kept.get("outputs")


def test_a_students_copy_finds_the_data(student):
    """Oracle: every path to data in a copy leads to a file that is there, seen from notebooks/student."""
    for path in NOTEBOOKS:
        made = student.unsolved(copy.deepcopy(stored(path)))
        for name in re.findall(r"\.\./[\w./-]+\.(?:pt|csv|json)\b", "\n".join(c.source for c in made.cells)):
            assert (FOLDER / "student" / name).resolve().is_file(), name


def run_of(name, seconds):
    """What a run of a notebook with a widget and a bar leaves: ids, times and pieces differ, content does not."""
    bar = [
        new_output("stream", name="stderr", text=t)
        for t in (" 50%|#| 1/2\r", f"100%|##| 2/2 [00:{seconds}<00:00, 3it/s]\n")
    ]
    view = new_output(
        "display_data", data={VIEW: {"model_id": name * 32}, "text/plain": f"<object at 0x7f00{seconds}aa{seconds}>"}
    )
    cells = [
        new_code_cell("show()", id="a", outputs=[*bar, view], metadata={"execution": {"t": seconds}}, execution_count=1)
    ]
    state = {
        name * 32: {"state": {"layout": "IPY_MODEL_" + f"{ord(name):032x}", "tooltip": None}},
        f"{ord(name):032x}": {"state": {"text": f"2/2 [00:{seconds}&lt;00:00]"}},
        "f" * 32: {"state": {"text": "made, and never shown"}},
    }
    return new_notebook(
        cells=cells, metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": state}}}
    )


def test_settling_leaves_no_trace_of_the_run(settle):
    """Oracle: two runs that differ in ids, times, addresses and pieces of a stream settle to the same text."""
    first, second = settle.settled(run_of("e", "11")), settle.settled(run_of("b", "59"))
    assert first == second
    notebook = json.loads(first)
    assert notebook["cells"][0]["outputs"][0]["text"] == ["100%|##| 2/2\n"]
    state = notebook["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    assert len(state) == 2, "a widget that nobody sees is stored"
    assert state[f"{1:032x}"]["state"] == {"layout": f"IPY_MODEL_{2:032x}"}, (
        "a widget lost its layout, or keeps defaults"
    )


def test_a_failing_notebook_stays_as_it_was(settle, tmp_path, capsys):
    """Oracle: the file's bytes before and after, and one line that names the error."""
    path = tmp_path / "failing.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("raise ValueError('no such bits')")]), path)
    before = path.read_bytes()
    assert settle.main([path]) == 1
    assert path.read_bytes() == before and "no such bits" in capsys.readouterr().err
