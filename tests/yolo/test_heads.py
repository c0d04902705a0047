"""Oracles: one cell decoded by hand, and the meaning of the start biases."""

import math

import pytest
import torch

from oscillab.yolo.heads import Detect, GridDetect, ImplicitDetect, ImplicitSegment, Segment, decode_level

ANCHORS = ((10, 13, 16, 30, 33, 23), (30, 61, 62, 45, 59, 119), (116, 90, 156, 198, 373, 326))


def sigmoid(x):
    """The logistic function of a number."""
    return 1 / (1 + math.exp(-x))


def test_one_cell_decodes_as_by_hand():
    """Oracle: the decode written out with Python numbers for anchor 1, row 2, column 3."""
    torch.manual_seed(0)
    raw = torch.randn(1, 3, 4, 5, 7, dtype=torch.float64)
    anchors = torch.tensor([[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]])
    found = decode_level(raw, anchors, 8, 2)
    x, y, w, h, *scores = raw[0, 1, 2, 3].tolist()
    expected = [
        *((2 * sigmoid(x) - 0.5 + 3) * 8, (2 * sigmoid(y) - 0.5 + 2) * 8),
        *((2 * sigmoid(w)) ** 2 * 16, (2 * sigmoid(h)) ** 2 * 30),
        *map(sigmoid, scores),
    ]
    assert found.shape == (1, 3 * 4 * 5, 7)
    assert found[0, 1 * 20 + 2 * 5 + 3].tolist() == pytest.approx(expected, rel=1e-12)


def test_what_follows_the_classes_passes_unchanged():
    """Oracle: mask coefficients are neither squashed nor moved."""
    raw = torch.randn(2, 3, 2, 2, 5 + 4 + 6)
    assert torch.equal(decode_level(raw, torch.ones(3, 2), 8, 4)[..., 9:], raw[..., 9:].reshape(2, 12, 6))


def test_half_precision_is_decoded_in_float32():
    """Oracle: neighbouring cells of a wide map differ by the stride, which bfloat16 cannot tell apart above 256."""
    raw = torch.zeros(1, 1, 1, 80, 6, dtype=torch.bfloat16)
    x = decode_level(raw, torch.ones(1, 2), 8, 1)[0, :, 0]
    assert x.dtype == torch.float32
    assert torch.equal(x, torch.arange(80) * 8 + 4.0)


def test_train_mode_gives_raw_maps_and_eval_mode_their_decode():
    """Oracle: decode of the raw maps; shapes as the public names promise."""
    torch.manual_seed(0)
    head = Detect([4, 6, 8], 3, ANCHORS)
    maps = [torch.randn(2, c, 32 // s, 64 // s) for c, s in ((4, 8), (6, 16), (8, 32))]
    raw = head.train()(maps)
    assert [tuple(x.shape) for x in raw] == [(2, 3, 4, 8, 8), (2, 3, 2, 4, 8), (2, 3, 1, 2, 8)]
    assert torch.equal(head.eval()(maps), head.decode(raw))
    assert head.eval()(maps).shape == (2, 3 * (32 + 8 + 2), 8)


def test_anchors_are_kept_divided_by_the_stride_and_given_in_pixels():
    """Oracle: the published anchor sizes; half precision holds the quotients exactly."""
    head = Detect([4, 6, 8], 3, ANCHORS)
    assert head.anchors[0, 0].tolist() == [1.25, 1.625]
    assert head.half().float().anchors_in_pixels().flatten().tolist() == [side for level in ANCHORS for side in level]


@pytest.mark.parametrize("classes", [1, 8, 80])
def test_a_new_head_expects_eight_objects_an_image(classes):
    """Oracle: over the cells of a 640 pixel image, each anchor's expected objects are 8, e^bias being the odds."""
    head = Detect([4, 6, 8], classes, ANCHORS)
    for conv in head.m:
        torch.nn.init.zeros_(conv.bias)
    head._start_biases()
    for conv, stride in zip(head.m, head.strides, strict=True):
        bias = conv.bias.view(3, -1)
        assert (640 / stride) ** 2 * bias[:, 4].exp().tolist()[0] == pytest.approx(8, rel=1e-5)
        assert bias[:, 5:].exp().flatten().tolist() == pytest.approx(
            [0.6 / (classes - 0.99999)] * 3 * classes, rel=1e-4
        )
        assert not bias[:, :4].any()


@pytest.fixture
def maps():
    """Three maps of random numbers, in float64, for heads of 4, 6 and 8 channels and an image of 32 x 64 pixels."""
    torch.manual_seed(0)
    return [torch.randn(2, c, 32 // s, 64 // s, dtype=torch.float64) for c, s in ((4, 8), (6, 16), (8, 32))]


def test_yolov7_differs_in_the_start_of_the_class_bias_and_keeps_the_anchors_twice():
    """Oracle: 0.6 / (classes - 0.99) as the odds of a class, and the buffer in pixels that the official files hold."""
    head = GridDetect([4, 6, 8], 1, ANCHORS)
    torch.nn.init.zeros_(head.m[0].bias)
    head._start_biases()
    assert head.m[0].bias.view(3, -1)[:, 5].exp().tolist() == pytest.approx([60.0] * 3, rel=1e-4)
    assert head.anchor_grid.shape == (3, 1, 3, 1, 1, 2)
    assert head.anchor_grid.flatten().tolist() == [side for level in ANCHORS for side in level]


def test_implicit_offsets_and_factors_stand_before_and_after_the_convolution(maps):
    """Oracle: the formula, written out with PyTorch's convolution on one level."""
    head = ImplicitDetect([4, 6, 8], 3, ANCHORS).double().train()
    conv = torch.nn.functional.conv2d(maps[1] + head.ia[1].implicit, head.m[1].weight, head.m[1].bias)
    expected = (conv * head.im[1].implicit).view(2, 3, 8, 2, 4).permute(0, 1, 3, 4, 2)
    torch.testing.assert_close(head(maps)[1], expected)
    assert (head.ia[0].implicit.std() < 0.1, (head.im[0].implicit - 1).abs().max() < 0.2) == (True, True)


@pytest.mark.parametrize("kind", [Segment, ImplicitSegment])
def test_a_segmenting_head_gives_coefficients_and_prototypes(kind, maps):
    """Oracle: shapes as the public names promise; coefficients are the raw ones, prototypes the same in both modes."""
    head = kind([4, 6, 8], 3, ANCHORS, 16).double().eval()
    decoded, prototypes = head(maps)
    assert (decoded.shape, prototypes.shape) == ((2, 3 * 42, 5 + 3 + 32), (2, 32, 8, 16))
    head.train()
    for layer in head.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval()
    raw, same = head(maps)
    assert torch.equal(prototypes, same)
    assert torch.equal(torch.cat([x[..., 8:].flatten(1, 3) for x in raw], 1), decoded[..., 8:])


def test_only_the_offsets_count_in_a_segmenting_head_of_yolov7(maps):
    """Oracle: the factors are in the official files and idle in the official code, the offsets are not."""
    head = ImplicitSegment([4, 6, 8], 3, ANCHORS, 16).double().eval()
    with torch.no_grad():
        before = head(maps)[0]
        for factor in head.im:
            factor.implicit += 1
        assert torch.equal(head(maps)[0], before)
        head.ia[0].implicit += 1
        assert not torch.allclose(head(maps)[0], before)
    assert head.im[0].implicit.shape == (1, 3 * 8, 1, 1)


def test_other_anchors_can_be_set():
    """Oracle: the pixels given, from both buffers, and through the decode: zeros decode to the anchor's size."""
    pixels = torch.arange(1.0, 19.0).view(3, 3, 2)
    head = GridDetect([4, 6, 8], 3, ANCHORS)
    head.set_anchors(pixels.tolist())
    assert torch.equal(head.anchors_in_pixels(), pixels)
    assert torch.equal(head.anchor_grid.flatten(), pixels.flatten())
    decoded = head.decode([torch.zeros(1, 3, 1, 1, 8) for _ in range(3)])
    assert torch.equal(decoded[0, :, 2:4], pixels.view(9, 2))
    with pytest.raises(ValueError, match=r"anchors must be \(3, 3, 2\), got \(2, 3, 2\)"):
        head.set_anchors(pixels[:2])
