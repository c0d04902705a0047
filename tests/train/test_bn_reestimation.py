"""Re-estimated statistics against sums over the data, and errors that leave every bit as it was."""

import copy

import pytest
import torch

from oscillab.train.remedies.controls import reestimate_bn


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 3, 5, 5, generator=generator) * 2 + 1 for _ in range(count)]


@pytest.fixture
def network():
    """Batch norm, convolution, batch norm, with statistics, affine and momentum of their own, in mixed modes."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, momentum=0.03)
    )
    model.train()
    for batch in images(3, seed=9):
        model(batch * 5)
    model[2].eval()
    return model


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_average_over_the_batches(network):
    """Oracle: numpy-like sums; the first norm's mean and unbiased variance are the averages over three batches."""
    given = images(3)
    reestimate_bn(network, given)
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in given]).mean(0)
    variance = torch.stack([batch.transpose(0, 1).flatten(1).var(1) for batch in given]).mean(0)
    torch.testing.assert_close(network[0].running_mean, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network[0].running_var, variance, rtol=1e-5, atol=1e-6)


def test_a_deep_norm_sees_what_training_would_show_it(network):
    """Oracle: the statistics of the second norm's input when the first normalizes with the batch's own statistics."""
    given = images(1)
    first = torch.nn.functional.batch_norm(given[0], None, None, network[0].weight, network[0].bias, training=True)
    expected = network[1](first).transpose(0, 1).flatten(1)
    reestimate_bn(network, given)
    torch.testing.assert_close(network[2].running_mean, expected.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network[2].running_var, expected.var(1), rtol=1e-4, atol=1e-5)


def test_nothing_but_the_statistics_changes(network):
    """Oracle: an invariant; weights, affine, counts, momenta and every module's mode are as before."""
    before, modes = bits(network), [module.training for module in network.modules()]
    reestimate_bn(network, images(2))
    changed = {name for name, tensor in bits(network).items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{i}.running_{what}" for i in (0, 2) for what in ("mean", "var")}
    assert [module.training for module in network.modules()] == modes and modes == [True, True, True, False]
    assert (network[0].momentum, network[2].momentum) == (0.1, 0.03)


def test_no_more_batches_than_asked_for(network):
    """Oracle: the first two batches alone, bit for bit; and no third is drawn from the data."""
    other = copy.deepcopy(network)
    drawn = iter(images(4))
    reestimate_bn(network, drawn, count=2)
    reestimate_bn(other, images(2))
    assert all(torch.equal(tensor, bits(other)[name]) for name, tensor in bits(network).items())
    assert len(list(drawn)) == 2


@pytest.mark.parametrize("given, error", [([], "images is empty"), ([*images(1), torch.zeros(1, 7, 5, 5)], None)])
def test_an_error_leaves_the_statistics_alone(network, given, error):
    """Oracle: the state before, bit for bit, not-a-number and negative zero included, in the same tensors; with no
    batch at all and with a second batch of wrong channels."""
    network[0].running_mean[:2] = torch.tensor([float("nan"), -0.0])
    before, places = bits(network), {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError if error else RuntimeError, match=error):
        reestimate_bn(network, given)
    for name, tensor in network.state_dict().items():
        assert tensor.data_ptr() == places[name] and tensor.numpy().tobytes() == before[name].numpy().tobytes(), name
    assert network[0].momentum == 0.1 and network[0].training


def test_a_norm_that_no_batch_reaches_keeps_its_statistics(network):
    """Oracle: the state before for a norm that the forward pass leaves out."""
    network[0].unused = torch.nn.BatchNorm2d(2)
    network[0].unused.running_mean.fill_(3.0)
    reestimate_bn(network, images(1))
    assert network[0].unused.running_mean.tolist() == [3.0, 3.0]
