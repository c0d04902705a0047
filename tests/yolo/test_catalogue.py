"""Oracles: the counts that the official code gives, and the figures that the authors publish."""

import pytest

from oscillab.yolo import zoo
from oscillab.yolo.catalogue import PUBLISHED, count_gflops, count_parameters, entries, entry

# Billions of operations at 640 x 640 as the official code prints them: as built, and fused.
GFLOPS = {
    "yolov5n": (4.6, 4.5),
    "yolov5s": (16.6, 16.4),
    "yolov5m": (49.2, 48.9),
    "yolov5l": (109.6, 109.0),
    "yolov5x": (206.3, 205.5),
    "yolov5n-seg": (7.2, 7.1),
    "yolov5s-seg": (26.6, 26.4),
    "yolov5m-seg": (71.3, 70.8),
    "yolov5l-seg": (148.4, 147.7),
    "yolov5x-seg": (266.6, 265.7),
    "yolov7-tiny": (13.9, 13.7),
    "yolov7-tiny-deploy": (13.9, 13.7),
    "yolov7": (106.5, 104.5),
    "yolov7-deploy": (106.5, 104.5),
    "yolov7-seg": (144.0, 143.2),
}


@pytest.mark.parametrize("name", GFLOPS)
def test_operations_are_official(name):
    """Oracle: the official code's figures, as printed, to one place."""
    assert round(entry(name).gflops, 1) == GFLOPS[name][0]


@pytest.mark.parametrize("name", GFLOPS)
def test_operations_of_fused_networks_are_official(name):
    """Oracle: the official code's figures, as printed, to one place."""
    assert round(count_gflops(zoo.blueprint(name, 80, fused=True)), 1) == GFLOPS[name][1]


def test_operations_grow_with_the_pixels():
    """Oracle: every layer is a convolution, so that half the side is a quarter of the cost; no hook stays behind."""
    model = zoo.blueprint("yolov5n", 80)
    assert count_gflops(model, 320) == pytest.approx(count_gflops(model) / 4)
    assert not any(layer._forward_hooks for layer in model.modules())


def test_every_model_has_its_row():
    """Oracle: the zoo's names in their order; parameters by the official code; published figures by their source."""
    rows = entries()
    assert [row.name for row in rows] == list(zoo.MODELS) == list(PUBLISHED) == list(GFLOPS)
    table = {row.name: row for row in rows}
    assert (table["yolov5n"].parameters, table["yolov7-deploy"].parameters) == (1_872_157, 37_620_125)
    assert count_parameters(zoo.build("yolov5n")) == 1_872_157
    assert table["yolov5s-seg"].published == (37.6, 31.7, 640, "YOLOv5 v7.0 README")
    assert table["yolov7-tiny"].published[:3] == (35.2, None, 416)
    assert [row.task for row in rows if row.published.mask_map] == ["segment"] * 6
    assert entry("yolov7") == table["yolov7"]


def test_an_unknown_name_is_refused():
    """Oracle: the message of the zoo."""
    with pytest.raises(ValueError, match="unknown model 'yolov9'"):
        entry("yolov9")
