"""Does the live picture follow a training in a browser, and does Stop stop it?"""

import re

import nbformat
import pytest
from page import BUSY

STOP = ".jp-OutputArea button:has-text('Stop')"
STATUS = ".jp-OutputArea .widget-html"


def lengthen(path):
    """Set `FULL_RUN = True` in a notebook's parameters: no machine ends 500 steps before Stop is clicked."""
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert "FULL_RUN = False" in cell.source
    cell.source = cell.source.replace("FULL_RUN = False", "FULL_RUN = True")
    nbformat.write(notebook, path)


def status(lab):
    """The status line: how the run goes, or how it ended."""
    return lab.page.inner_text(STATUS)


def start(lab, name):
    """Run the notebook until its training has begun; its first picture."""
    lab.open(name)
    lab.run_all(wait=False)
    lab.page.wait_for_selector(f"{STOP}:not([disabled])", timeout=1000 * BUSY)
    return lab.wait_for_change([], seconds=BUSY)


@pytest.mark.parametrize("name", ["03_train_ema_qat", "04_quantization_correction", "06_segmentation"])
def test_stop_ends_the_training_while_its_cell_runs(lab, folder, name):
    """Oracle: a picture that changes while it trains; after the click the status says so and the button is off; the next
    cell, which asserts the last step, ends in an error."""
    lengthen(folder / f"{name}.ipynb")
    lab.wait_for_change(start(lab, name), seconds=BUSY)
    stopped_at = int(re.match(r"step (\d+) of 500,", status(lab)).group(1))
    lab.page.click(STOP)
    lab.page.wait_for_function(
        "text => document.querySelector(text).innerText.startsWith('stopped')", arg=STATUS, timeout=1000 * BUSY
    )
    lab.wait()
    step = int(re.match(r"stopped: step (\d+) of 500,", status(lab)).group(1))
    assert 0 < stopped_at <= step < 500
    assert lab.page.is_disabled(STOP)
    assert lab.outputs("error") == 1, "the cell after the run says that it was stopped"
    assert lab.shows_no_widget_error()


def test_it_runs_to_its_end_and_keeps_its_picture(lab):
    """Oracle: a last picture that is not the first; the last step in the status line; no error; saved, it still shows."""
    first = start(lab, "03_train_ema_qat")
    lab.wait()
    assert lab.wait_for_change(first) and lab.outputs("error") == 0 and lab.shows_no_widget_error()
    assert status(lab).startswith("done: step 50 of 50,") and lab.page.is_disabled(STOP)
    count = lab.shown_count()
    lab.reopen("03_train_ema_qat")
    lab.wait_for_shown(count)
