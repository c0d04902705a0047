"""Does a notebook show its widget's picture when it is opened where no kernel runs?"""

import pytest

WITH_WIDGET = ("01_what_is_an_oscillation", "02_instrument_a_layer")


@pytest.mark.parametrize("name", WITH_WIDGET)
def test_the_committed_notebook_without_a_kernel(lab, name):
    """Oracle: the page as it is committed: a picture in the widget's place, no error in any widget's."""
    lab.open(name, kernel=False)
    lab.page.wait_for_timeout(3000)
    assert lab.shows_no_widget_error()
    assert lab.pictures()
