"""Does the live picture follow a training in a browser, and does Stop stop it?"""

import re

import pytest
from page import BUSY

STOP = ".jp-OutputArea button:has-text('Stop')"
STATUS = ".jp-OutputArea .widget-html"


def step_of(page):
    """The step that the status line tells, 0 before the first."""
    found = re.search(r"step (\d+)", page.inner_text(STATUS))
    return int(found.group(1)) if found else 0


def start(lab, name):
    """Run the notebook until its training has begun and a picture of it was followed by another."""
    lab.open(name)
    lab.run_all(wait=False)
    lab.page.wait_for_selector(f"{STOP}:not([disabled])", timeout=1000 * BUSY)
    lab.wait_for_change(lab.wait_for_change([], seconds=BUSY), seconds=BUSY)


@pytest.mark.parametrize("name", ["03_train_ema_qat", "04_quantization_correction", "06_segmentation"])
def test_stop_ends_the_training_while_its_cell_runs(lab, name):
    """Oracle: the status says so and the button is off; the next cell, which asserts the last step, ends in an error."""
    start(lab, name)
    stopped_at = step_of(lab.page)
    lab.page.click(STOP)
    lab.page.wait_for_function(
        "text => document.querySelector(text).innerText.startsWith('stopped')", arg=STATUS, timeout=1000 * BUSY
    )
    lab.wait()
    step, total = re.search(r"step (\d+) of (\d+)", lab.page.inner_text(STATUS)).groups()
    assert 0 < stopped_at <= int(step) < int(total)
    assert lab.page.is_disabled(STOP)
    assert lab.outputs("error") == 1, "the cell after the run says that it was stopped"
    assert lab.shows_no_widget_error()


def test_it_runs_to_its_end_and_keeps_its_picture(lab):
    """Oracle: a picture that changes while it trains; the last step in the status line; no error; saved, it still shows."""
    start(lab, "03_train_ema_qat")
    lab.wait()
    assert lab.outputs("error") == 0 and lab.shows_no_widget_error()
    assert step_of(lab.page) == 50 and lab.page.is_disabled(STOP)
    count = lab.shown_count()
    lab.reopen("03_train_ema_qat")
    lab.wait_for_shown(count)
