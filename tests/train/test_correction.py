"""QC: the identity at its start, exact when folded, and training nothing but its factors."""

import copy

import pytest
import torch

from oscillab.quant import step_sizes
from oscillab.quant.fold import corrections, fold, insert_corrections
from oscillab.train.config import TrainSpec
from oscillab.train.correction import Choices, correct
from oscillab.yolo.loss import DetectionLoss

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SPEC = TrainSpec(learning_rate=1e-3, warmup_steps=0)


def shake(model):
    """Give every factor a value far from the identity, and BN statistics far from 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    ranges = {"correction_scale": (0.7, 1.4), "correction_shift": (-0.3, 0.3)}
    ranges |= {"running_mean": (-0.5, 0.5), "running_var": (0.5, 2), "bn.weight": (0.5, 1.5)}
    for name, tensor in model.state_dict().items():
        for ending in filter(name.endswith, ranges):
            tensor.uniform_(*ranges[ending], generator=generator)
    return model


def described(model):
    """Names and types of all modules, and the keys of the state_dict."""
    return [(name, type(module)) for name, module in model.named_modules()], list(model.state_dict())


@torch.no_grad()
def test_is_the_identity_at_its_start(quantized):
    """Oracle: gamma = 1 and beta = 0 change no bit of the output; save then load is the same, after a copy too."""
    before = quantized(IMAGES)
    assert torch.equal(insert_corrections(quantized)(IMAGES), before)
    assert len(corrections(quantized)) == 60  # the three detection convolutions among them
    other = copy.deepcopy(quantized)
    other.load_state_dict(shake(quantized).state_dict())
    assert torch.equal(other(IMAGES), quantized(IMAGES))


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("kind", ["detector", "quantized"])
def test_folding_changes_the_function_by_nothing(request, kind, granularity):
    """Oracle: the unfolded model in float64, where nothing but the fold's algebra can differ; modules and keys before.

    Activation quantizers turn a last-digit difference into a whole bin, so they are switched off; the next test keeps them.
    """
    model = request.getfixturevalue(kind).double()
    before = described(model)
    for module in model.modules():
        if hasattr(module, "input_quantizer"):
            module.input_quantizer.enabled = False
    shake(insert_corrections(model, granularity=granularity))
    with torch.no_grad():
        expected, folded = model(IMAGES.double()), fold(model)(IMAGES.double())
    torch.testing.assert_close(folded, expected, rtol=1e-9, atol=1e-9)
    assert described(model) == before


def test_trains_the_factors_alone_and_folds_to_less_than_1e_5(quantized, batches):
    """Oracle: every tensor that is no correction, BN statistics and step sizes included, is bit-equal after training; the
    unfolded model's raw outputs, on every value whose activations fall into the same bins."""
    before = {name: tensor.clone() for name, tensor in quantized.state_dict().items()}
    correct(quantized, batches, spec=SPEC, progress=False)
    modules = corrections(quantized)
    assert all((m.correction_scale != 1).any() and (m.correction_shift != 0).any() for m in modules.values())
    after = {name: t for name, t in quantized.state_dict().items() if "correction_" not in name}
    for name in modules:
        after = {key.replace(f"{name}.conv.", f"{name}."): tensor for key, tensor in after.items()}
    assert after.keys() == before.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.requires_grad for name, p in quantized.named_parameters())
    folded = fold(copy.deepcopy(quantized))
    with torch.no_grad():
        expected, found = quantized.double()(IMAGES.double()), folded.double()(IMAGES.double())
    assert ((found - expected).abs() / expected.abs().clamp(min=1)).max() < 1e-5


@pytest.mark.parametrize("part, other, identity", [("scale", "shift", 0), ("shift", "scale", 1)])
def test_one_part_alone(quantized, batches, part, other, identity):
    """Oracle: the part that is not named stays the identity; a shift alone leaves all step sizes as they were, folded too."""
    before = {name: step_size.clone() for name, step_size in step_sizes(quantized).items()}
    correct(quantized, batches, parts=(part,), spec=SPEC, progress=False)
    assert all((getattr(m, f"correction_{other}") == identity).all() for m in corrections(quantized).values())
    after = step_sizes(fold(quantized))
    assert all(torch.equal(after[name], before[name]) for name in before) == (part == "shift")


def test_bad_input(quantized):
    """Oracle: the sentences a user reads, and nothing changed by a fold that is refused."""
    for options, words in (
        ({"parts": ("offset",)}, "parts must be among scale, shift, got offset"),
        ({"granularity": "per_row"}, "granularity must be one of per_channel, per_tensor, got .?per_row"),
    ):
        with pytest.raises(ValueError, match=words):
            insert_corrections(quantized, **options)
    insert_corrections(quantized)
    with pytest.raises(ValueError, match="fold them before"):
        insert_corrections(quantized)
    corrections(quantized)["model.24.m.0"].correction_scale.data[0] = -1.0
    with pytest.raises(ValueError, match="cannot fold .*must be positive"):
        fold(quantized)
    assert len(corrections(quantized)) == 60


@pytest.mark.parametrize("what", ["no loss of its own", "an error in training", "a second Ctrl-C"])
def test_an_error_leaves_the_model_as_it_was(tiny, quantized, batches, what):
    """Oracle: modules, tensors and flags before; the next try is not told that the model already holds corrections."""

    def fail(*arguments, **options):
        raise KeyboardInterrupt if "Ctrl-C" in what else ZeroDivisionError

    model, loss = (tiny(), None) if what == "no loss of its own" else (quantized, fail)
    state, modules = copy.deepcopy(model.state_dict()), list(model.named_modules())
    with pytest.raises((ValueError, ZeroDivisionError, KeyboardInterrupt)):
        correct(model, batches, loss=loss, progress=False)
    assert list(model.named_modules()) == modules and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(model.state_dict()[name], t) for name, t in state.items() if "num_batches" not in name)


def test_what_the_paper_leaves_open(quantized, batches):
    """Oracle: counts by hand of 4 batches and of 60 convolutions, 3 without BN; folding stays exact in what it reaches."""
    seen, choices, loss = [], Choices(qc_share=0.5, qc_layers="before_bn"), DetectionLoss(quantized)

    def counted(*arguments, **options):
        seen.append(arguments)
        return loss(*arguments, **options)

    correct(quantized, batches, spec=SPEC, choices=choices, loss=counted, progress=False)
    assert len(seen) == 2 and len(corrections(quantized)) == 57
    affine = {n: p.detach().clone() for n, p in fold(quantized).named_parameters() if n.endswith("bn.weight")}
    correct(quantized, batches, spec=SPEC, choices=Choices(qc_bn_affine=True), progress=False)
    assert not all(torch.equal(value, quantized.get_parameter(name)) for name, value in affine.items())
    assert all(parameter.requires_grad for parameter in quantized.parameters())


def test_an_average_of_the_factors(quantized, batches):
    """Oracle: an average of factors that began at the identity lies nearer to it than the last ones do."""
    spec = TrainSpec(epochs=2, learning_rate=1e-3, schedule="constant", warmup_steps=0)

    def distance(choices):
        model = correct(copy.deepcopy(quantized), batches, spec=spec, choices=choices, progress=False)
        return sum(float((one.correction_scale.detach() - 1).abs().sum()) for one in corrections(model).values())

    assert 0 < distance(Choices(qc_averaged=True)) < distance(Choices())
