"""The building blocks of figures: bytes, headlines, grids of panels."""

from io import BytesIO

import numpy as np
import pytest
import seaborn
from PIL import Image

from oscillab.methods import METHODS, method
from oscillab.plot.style import new_figure, set_headline, text_figure


def rendered(figure):
    """The pixels of a figure's PNG, (height, width, 3)."""
    return np.asarray(Image.open(BytesIO(figure.png())).convert("RGB")).astype(int)


def test_methods_keep_their_house_style():
    """Oracle: the house style's words, and seaborn's colorblind palette."""
    palette = seaborn.color_palette("colorblind").as_hex()
    expected = {
        "lsq": (0, "solid", "o"),
        "ema": (1, "dashed", "s"),
        "lsq+qc": (2, "dotted", "^"),
        "ema+qc": (3, "dashdot", "D"),
    }
    for name, (index, dash, marker) in expected.items():
        assert (METHODS[name].color, METHODS[name].dash, METHODS[name].marker) == (palette[index], dash, marker)
    main = [one.color for one in METHODS.values() if one.main]
    assert len(set(main)) == len(main)


def test_runs_of_ones_own_look_like_no_method():
    """Oracle: an invariant; of sixteen unknown names no two look alike, and none has a method's colour."""
    own = [method(f"run of one's own {number}") for number in range(16)]
    assert len({(one.color, one.dash) for one in own}) == 16
    assert not {one.color for one in own} & {one.color for one in METHODS.values()}


def test_png_keeps_the_colour_of_a_small_mark():
    """Oracle: one marker of each method is found in the pixels within 24 of its colour, beside much else."""
    figure, axes = new_figure()
    axes[0, 0].plot(np.random.default_rng(0).normal(size=(300, 6)).cumsum(0))
    main = [one for one in METHODS.values() if one.main]
    for place, one in enumerate(main):
        axes[0, 0].plot([20 * place], [0], "s", markersize=5, color=one.color, zorder=9)
    pixels = rendered(figure)
    for one in main:
        color = [int(one.color[i : i + 2], 16) for i in (1, 3, 5)]
        assert np.abs(pixels - color).max(2).min() < 24, f"{one.label} lost its colour"


def test_png_keeps_a_photograph():
    """Oracle: the same figure through matplotlib alone. Dithering keeps means: those of 8 x 8 pixels to 20 of 255."""
    figure, axes = new_figure(4, 3)
    generator = np.random.default_rng(0)
    axes[0, 0].imshow(generator.integers(0, 255, (6, 8, 3), dtype=np.uint8), interpolation="bicubic", aspect="auto")
    plain = BytesIO()
    figure.savefig(plain, format="png", dpi=96)
    expected = np.asarray(Image.open(plain).convert("RGB")).astype(int)
    blocks = (rendered(figure) - expected)[:288, :384].reshape(36, 8, 48, 8, 3).mean((1, 3))
    assert np.abs(blocks).max() < 20  # a wrong colour is off by more than 50


def test_a_long_headline_is_broken_into_lines():
    """Oracle: no line is wider than the figure; by hand, 24 words of 4 letters in 55 characters a line are 3 lines of 8."""
    figure, _ = new_figure(5, 3)
    set_headline(figure, " ".join(["four"] * 24))
    assert [len(line.split()) for line in figure.get_suptitle().split("\n")] == [8, 8, 8]
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert figure._suptitle.get_window_extent().width < figure.get_figwidth() * figure.dpi


@pytest.mark.parametrize("text", ["no such layer", "a file with a long name cannot be read, and this says why " * 4])
def test_a_sentence_is_a_figure(text):
    """Oracle: its only text, word for word, within a figure that leaves less than 50 pixels of its height empty."""
    figure = text_figure(text)
    (drawn,) = figure.axes[0].texts
    assert drawn.get_text().split() == text.split()
    figure.png()
    box = drawn.get_window_extent()
    assert min(box.x0, box.y0) >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
    assert figure.bbox.height < box.height + 50
