"""Does settling take out of a notebook what differs from run to run, and nothing else?"""

import importlib.util
import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def settle():
    """The script notebooks/settle.py as a module."""
    spec = importlib.util.spec_from_file_location("settle", FOLDER / "settle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
