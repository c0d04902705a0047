"""Does the picture of notebook 03 follow its training in a browser, and does Stop stop it?"""

import re

STOP = ".jp-OutputArea button:has-text('Stop')"
STATUS = ".jp-OutputArea .widget-html"


def step_of(page):
    """The step that the status line tells, 0 before the first."""
    found = re.search(r"step (\d+)", page.inner_text(STATUS))
    return int(found.group(1)) if found else 0


def test_stop_ends_the_training_while_its_cell_runs(lab):
    """Oracle: the status says so and the button is off; the next cell, which asserts the last step, ends in an error."""
    lab.open("03_train_ema_qat")
    lab.run_all(wait=False)
    lab.page.wait_for_selector(f"{STOP}:not([disabled])", timeout=120_000)
    before = lab.pictures()
    lab.wait_for_change(before, seconds=120)
    stopped_at = step_of(lab.page)
    lab.page.click(STOP)
    lab.page.wait_for_function(
        "text => document.querySelector(text).innerText.startsWith('stopped')", arg=STATUS, timeout=60_000
    )
    lab.wait()
    assert 0 < step_of(lab.page) < 50 and step_of(lab.page) >= stopped_at
    assert lab.page.is_disabled(STOP)
    assert lab.outputs("error") == 1, "the cell after the run says that it was stopped"
    assert lab.shows_no_widget_error()


def test_it_runs_to_its_end_and_keeps_its_picture(lab):
    """Oracle: a picture that changes while it trains; the last step in the status line; no error in any cell."""
    lab.open("03_train_ema_qat")
    lab.run_all(wait=False)
    lab.page.wait_for_selector(f"{STOP}:not([disabled])", timeout=120_000)
    lab.wait_for_change(lab.pictures(), seconds=120)
    lab.wait(600)
    assert lab.outputs("error") == 0 and lab.shows_no_widget_error()
    assert step_of(lab.page) == 50 and lab.page.is_disabled(STOP)
