"""Does the toy's Explorer of notebook 01 follow its knobs in a browser?"""

import pytest


@pytest.fixture
def notebook(lab):
    """Notebook 01, run from top to bottom."""
    lab.open("01_what_is_an_oscillation")
    lab.run_all()
    return lab


def test_every_knob_changes_the_picture(notebook):
    """Oracle: after a knob is moved by the keyboard, the picture's address in the page is another one; a saved one stays."""
    assert notebook.outputs("error") == 0 and notebook.shows_no_widget_error()
    handles = notebook.page.locator(".jp-OutputArea .widget-slider .noUi-handle")
    assert handles.count() == 3
    pictures = notebook.pictures()
    assert len(pictures) == 1
    for handle in handles.all():
        handle.focus()
        handle.press("ArrowRight")
        pictures = notebook.wait_for_change(pictures)
    count = notebook.shown_count()
    notebook.reopen("01_what_is_an_oscillation")
    notebook.wait_for_shown(count)
    assert notebook.shows_no_widget_error()
