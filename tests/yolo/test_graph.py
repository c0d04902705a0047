"""Oracles: the same network before and after, hand-made tables, and the rows written out as plain calls."""

import copy
import pickle

import pytest
import torch
from torch import nn

from oscillab.yolo import zoo
from oscillab.yolo.blocks import Concat, Conv
from oscillab.yolo.graph import Detector, Row
from oscillab.yolo.heads import Detect

ANCHORS = ((10, 13), (30, 61))


def small_table():
    """Four rows with a relative, an absolute and a joined source."""
    return [
        Row(-1, Conv, (4, 3, 2)),
        Row(-1, Conv, (6, 3, 2)),
        Row(0, Conv, (5, 3, 2)),
        Row((-1, -2), Concat),
        Row((3, 1), Detect, (2, ANCHORS, (4, 4))),
    ]


@pytest.fixture(scope="module")
def nano():
    """A YOLOv5n for three classes in eval mode."""
    torch.manual_seed(0)
    return zoo.build("yolov5n", 3).eval()


def test_the_table_is_followed_with_relative_absolute_and_joined_sources():
    """Oracle: the five rows as plain calls."""
    torch.manual_seed(0)
    model = Detector("small", small_table(), names=["a", "b"]).eval()
    x = torch.randn(1, 3, 8, 8)
    a = model.model[0](x)
    b, c = model.model[1](a), model.model[2](a)
    expected = model.head([torch.cat((c, b), 1), b])
    assert torch.equal(model(x), expected)
    assert model.sources == [-1, 0, 0, (2, 1), (3, 1)]


def test_maps_that_nothing_reads_again_are_let_go():
    """Oracle: the official list of saved rows for YOLOv5 (23 is read by the next row at once)."""
    assert zoo.build("yolov5n").kept == {4, 6, 10, 14, 17, 20}


def test_a_copy_a_pickle_and_float64_give_the_same_network(nano):
    """Oracle: the outputs of the original; float64 within float32's rounding over 60 layers."""
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = nano(x)
        assert torch.equal(copy.deepcopy(nano)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(nano))(x), expected)
        exact = copy.deepcopy(nano).double()(x.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(expected.double(), exact, rtol=1e-4, atol=1e-4)


def test_convolutions_can_be_replaced_by_subclasses(nano):
    """Oracle: the outputs before, since the subclass computes the same."""

    class Counted(nn.Conv2d):
        count = 0

        def forward(self, x):
            Counted.count += 1
            return super().forward(x)

    model = copy.deepcopy(nano)
    for layer in model.modules():
        if type(layer) is nn.Conv2d:
            layer.__class__ = Counted
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x), nano(x))
    assert Counted.count == 60


def test_channels_last_gives_the_same(nano):
    """Oracle: the outputs in PyTorch's usual memory layout, in both modes."""
    x = torch.rand(2, 3, 64, 96)
    other, turned = copy.deepcopy(nano).to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(other(turned), nano(x), rtol=1e-4, atol=1e-4)
        other.train()
        assert [tuple(raw.shape) for raw in other(turned)] == [(2, 3, 64 // s, 96 // s, 8) for s in (8, 16, 32)]


def test_a_batch_equals_its_images_one_by_one(nano):
    """Oracle: invariance; float32 kernels may differ in the last digits with the batch size."""
    x = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(nano(x), torch.cat([nano(x[i : i + 1]) for i in range(3)]), rtol=1e-4, atol=1e-4)


def test_every_parameter_gets_a_gradient(nano):
    """Oracle: none may be left out of the graph; a loss over all raw outputs reaches all of them."""
    model = copy.deepcopy(nano).train()
    sum(raw.square().mean() for raw in model(torch.rand(2, 3, 64, 64))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_end_layers_are_convolutions_of_the_model(nano):
    """Oracle: the facts: the first convolution and the three 1x1 convolutions of row 24."""
    assert nano.end_layers == ["model.0.conv", "model.24.m.0", "model.24.m.1", "model.24.m.2"]
    assert all(isinstance(nano.get_submodule(name), nn.Conv2d) for name in nano.end_layers)
    assert (nano.task, nano.strides, nano.classes, nano.names) == ("detect", (8, 16, 32), 3, ["0", "1", "2"])


@pytest.mark.parametrize("shape", [(1, 3, 64, 65), (1, 3, 48, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_images_of_another_shape_are_refused_in_one_line(nano, shape):
    """Oracle: the message tells what is allowed and what was given."""
    with pytest.raises(ValueError, match=r"multiples of 32, got \(") as error:
        nano(torch.rand(shape))
    assert "\n" not in str(error.value)
