"""Quick drawing for tests of widgets, which ask what is drawn and not how it looks."""

from io import BytesIO

import pytest

from oscillab.plot.style import InlineFigure


def quick_png(figure):
    """PNG of few pixels and without a layout, which takes most of the time."""
    figure.set_layout_engine("none")
    file = BytesIO()
    figure.savefig(file, format="png", dpi=24)
    return file.getvalue()


@pytest.fixture
def quick(monkeypatch):
    """Every figure's PNG is made quickly."""
    monkeypatch.setattr(InlineFigure, "png", quick_png)
