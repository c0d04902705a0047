"""Do convolutions of one input share its quantizer, with the values of quantizers tied to one step size?"""

import copy

import pytest
import torch

from oscillab.quant import QuantSpec, calibrate, quant_layers, quantize, quantizers, step_sizes
from oscillab.quant.share import SharedQuantizer


@pytest.fixture
def shared(network, batches):
    """The network of conftest.py, whose layers 6.one and 6.two read one tensor."""
    return quantize(network, QuantSpec(share_inputs=True), batches)


def test_the_two_branches_share_and_nobody_else(shared, fresh, batches):
    """Oracle: the network's text: `Branches` hands one x to two convolutions. By default they do not share."""
    found = quant_layers(shared)
    assert found["6.one"].input_quantizer is found["6.two"].input_quantizer
    assert isinstance(found["6.one"].input_quantizer, SharedQuantizer)
    assert len({id(layer.input_quantizer) for layer in found.values()}) == len(found) - 1
    apart = quant_layers(quantize(fresh(), QuantSpec(), batches))
    assert len({id(layer.input_quantizer) for layer in apart.values()}) == len(apart)


def test_layers_of_other_bits_do_not_share(fresh, batches):
    """Oracle: one grid cannot have 4 and 8 bits: where 6.two is an end of 8 bits, each has its own."""
    model = fresh()
    model.end_layers = ["0", "6.two"]
    found = quant_layers(quantize(model, QuantSpec(share_inputs=True), batches))
    assert found["6.one"].input_quantizer is not found["6.two"].input_quantizer
    assert [found[f"6.{name}"].input_quantizer.bits for name in ("one", "two")] == [4, 8]


def test_equal_to_two_quantizers_tied_to_one_step_size(shared, fresh, batches):
    """Oracle: the network with two quantizers and one Parameter between them: equal outputs to the bit.

    Gradients to 1e-5: the sum of two gradients is masked, where two masked gradients are summed.
    """
    tied = quantize(fresh(), QuantSpec(), None)
    tied.load_state_dict(shared.state_dict())
    one, two = (quant_layers(tied)[f"6.{name}"].input_quantizer for name in ("one", "two"))
    two.step_size = one.step_size
    assert one is not two and two.calibrated
    results = []
    for model in (shared.train(), tied.train()):
        y = model(batches[0])
        y.square().mean().backward()
        results.append((y.detach(), {n: p.grad for n, p in model.named_parameters()}))
    assert torch.equal(results[0][0], results[1][0])
    assert set(results[0][1]) == set(results[1][1])
    for name, mine in results[0][1].items():
        torch.testing.assert_close(mine, results[1][1][name], rtol=1e-4, atol=1e-6)


def test_a_tensor_is_quantized_once_and_let_go(shared, batches, monkeypatch):
    """Oracle: a count: as many quantizations as quantizers in one pass, and nothing remembered after it."""
    count = []
    monkeypatch.setattr("oscillab.quant.quantizer.lsq", counted(count))
    shared(batches[0])
    assert len(count) == len(quantizers(shared))
    assert all(q._held is None for q in quantizers(shared).values() if isinstance(q, SharedQuantizer))


def counted(count):
    from oscillab.quant.lsq import lsq

    def call(*arguments, **options):
        count.append(1)
        return lsq(*arguments, **options)

    return call


def test_what_is_remembered_is_never_stale(shared):
    """Oracle: the value without memory, after the input, the step size or the mode of gradients changed between readers."""
    quantizer = quant_layers(shared)["6.one"].input_quantizer
    x = torch.randn(2, 8, 4, 4)

    def expected():
        return super(SharedQuantizer, quantizer).forward(x)

    assert torch.equal(quantizer(x), expected())
    x.mul_(0.5)
    assert torch.equal(quantizer(x), expected())
    with torch.no_grad():
        quantizer.step_size.mul_(1.7)
        assert torch.equal(quantizer(x), expected()) and not quantizer(x).requires_grad
    assert quantizer(x).requires_grad
    quantizer.enabled = False
    assert quantizer(x) is x


def test_copies_files_and_calibration(shared, fresh, batches):
    """Oracle: invariants: a copy and a loaded state give the same outputs and still share; one step size for two names."""
    shared.eval()
    first = shared(batches[0])
    quant_layers(shared)["6.one"].input_quantizer(torch.randn(1, 8, 4, 4, requires_grad=True))  # one reader of two
    twin = copy.deepcopy(shared)
    other = quantize(fresh(), QuantSpec(share_inputs=True), None)
    other.load_state_dict(shared.state_dict())
    for model in (twin, other.eval()):
        pair = [quant_layers(model)[f"6.{name}"].input_quantizer for name in ("one", "two")]
        assert pair[0] is pair[1] and pair[0] is not quant_layers(shared)["6.one"].input_quantizer
        assert torch.equal(model(batches[0]), first)
    assert len(step_sizes(shared)) == 2 * len(quant_layers(shared)) - 1
    calibrate(shared, batches)
    assert torch.equal(shared(batches[0]), first)


def test_the_recorder_copes(shared, batches):
    """Oracle: both layers show the one range, and a recording has a row of it for each."""
    from oscillab.recording.recorder import record

    shared.train()
    optimizer = torch.optim.SGD(shared.parameters(), lr=0.1)
    with record(shared, optimizer, ranges_every=1) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            shared(batches[0]).square().mean().backward()
            optimizer.step()
        recording = recorder.recording()
    names = list(recording.layer_names)
    one, two = (recording["clip_high"][:, names.index(f"6.{name}")] for name in ("one", "two"))
    assert len(one) == 4 and (one == two).all() and (one > 0).all()


def test_a_model_that_takes_no_such_picture_stays_as_it_was(batches):
    """Oracle: the message, and plain convolutions."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Flatten(), torch.nn.Linear(4 * 16 * 16, 2))
    with pytest.raises(ValueError, match=r"share_inputs needs a model that takes \(1, 3, 64, 64\)"):
        quantize(model, QuantSpec(share_inputs=True), batches)
    assert type(model[0]) is torch.nn.Conv2d
