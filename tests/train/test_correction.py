"""QC: the identity at its start, exact when folded, and training nothing but its factors."""

import copy

import pytest
import torch

from oscillab.quant import step_sizes
from oscillab.quant.fold import CorrectedConv2d, corrections, fold, insert_corrections
from oscillab.train.config import TrainSpec
from oscillab.train.correction import Choices, correct

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def shake(model):
    """Give every factor a value far from the identity, and BN statistics far from 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for corrected in corrections(model).values():
            corrected.correction_scale.uniform_(0.7, 1.4, generator=generator)
            corrected.correction_shift.uniform_(-0.3, 0.3, generator=generator)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
    return model


def test_is_the_identity_at_its_start(quantized):
    """Oracle: gamma = 1 and beta = 0 change no bit of the output."""
    with torch.no_grad():
        before = quantized(IMAGES)
        assert torch.equal(insert_corrections(quantized)(IMAGES), before)
    assert len(corrections(quantized)) == 60  # the three detection convolutions among them


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("kind", ["detector", "quantized"])
def test_folding_changes_the_function_by_nothing(request, kind, granularity):
    """Oracle: the unfolded model in float64, where nothing but the fold's algebra can differ.

    Activation quantizers turn a last-digit difference into a whole bin, so they are switched off here; the test below
    keeps them.
    """
    model = request.getfixturevalue(kind).double()
    for module in model.modules():
        if hasattr(module, "input_quantizer"):
            module.input_quantizer.enabled = False
    shake(insert_corrections(model, granularity=granularity))
    with torch.no_grad():
        before = model(IMAGES.double())
        after = fold(model)(IMAGES.double())
    assert not corrections(model)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


def test_folding_a_trained_correction_changes_outputs_by_less_than_1e_5(quantized, batches):
    """Oracle: the unfolded model's raw outputs, float32, on every value whose activations fall into the same bins."""
    correct(quantized, batches, spec=TrainSpec(learning_rate=1e-3, warmup_steps=0), progress=False)
    folded = fold(copy.deepcopy(quantized))
    with torch.no_grad():
        before, after = quantized.double()(IMAGES.double()), folded.double()(IMAGES.double())
    relative = (after - before).abs() / before.abs().clamp(min=1)
    assert relative.max() < 1e-5


def test_folded_integer_states_are_those_before(quantized):
    """Oracle: the integer states before folding; the detection convolutions' per-channel step sizes move none of them."""
    before = {name: m.integer_state().clone() for name, m in quantized.named_modules() if hasattr(m, "integer_state")}
    fold(shake(insert_corrections(quantized)))
    after = {name: m.integer_state() for name, m in quantized.named_modules() if hasattr(m, "integer_state")}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_folded_model_has_the_modules_of_the_model_before(quantized):
    """Oracle: names and types of all modules, and the keys of the state_dict, before insertion."""
    before = [(name, type(module)) for name, module in quantized.named_modules()]
    keys = list(quantized.state_dict())
    fold(insert_corrections(quantized))
    assert [(name, type(module)) for name, module in quantized.named_modules()] == before
    assert list(quantized.state_dict()) == keys


def test_trains_the_factors_alone(quantized, batches):
    """Oracle: every tensor that is no correction, BN statistics and step sizes included, is bit-equal after training."""
    before = {name: tensor.clone() for name, tensor in quantized.state_dict().items()}
    correct(quantized, batches, spec=TrainSpec(learning_rate=1e-3, warmup_steps=0), progress=False)
    modules = corrections(quantized)
    assert all((m.correction_scale != 1).any() and (m.correction_shift != 0).any() for m in modules.values())
    state = quantized.state_dict()
    after = {_without_wrapper(name, modules): tensor for name, tensor in state.items() if "correction_" not in name}
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.requires_grad for name, p in quantized.named_parameters())


def _without_wrapper(name, modules):
    for wrapper in modules:
        if name.startswith(wrapper + ".conv."):
            return wrapper + name.removeprefix(wrapper + ".conv")
    return name


@pytest.mark.parametrize("parts", [("scale",), ("shift",)])
def test_one_part_alone(quantized, batches, parts):
    """Oracle: the part that is not named stays the identity."""
    correct(quantized, batches, parts=parts, spec=TrainSpec(learning_rate=1e-3, warmup_steps=0), progress=False)
    fixed = "correction_shift" if parts == ("scale",) else "correction_scale"
    identity = 0 if parts == ("scale",) else 1
    assert all((getattr(m, fixed) == identity).all() for m in corrections(quantized).values())


def test_a_shift_alone_leaves_every_step_size_as_it_was(quantized):
    """Oracle: names, shapes and values of all step sizes before; a shift has nothing to do with them."""
    before = {name: step_size.clone() for name, step_size in step_sizes(quantized).items()}
    insert_corrections(quantized, parts=("shift",))
    for corrected in corrections(quantized).values():
        corrected.correction_shift.data.fill_(0.1)
    after = step_sizes(fold(quantized))
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_survives_deepcopy_and_state_dict(quantized):
    """Oracle: save then load is the same."""
    shake(insert_corrections(quantized))
    other = copy.deepcopy(quantized)
    with torch.no_grad():
        for corrected in corrections(other).values():
            corrected.correction_scale.fill_(1)
    other.load_state_dict(quantized.state_dict())
    with torch.no_grad():
        assert torch.equal(other(IMAGES), quantized(IMAGES))


def test_bad_input(quantized):
    """Oracle: the sentences a user reads, and nothing changed by a fold that is refused."""
    with pytest.raises(ValueError, match="parts must be among scale, shift, got offset"):
        insert_corrections(quantized, parts=("offset",))
    with pytest.raises(ValueError, match="granularity must be one of per_channel, per_tensor, got per_row"):
        insert_corrections(quantized, granularity="per_row")
    insert_corrections(quantized)
    with pytest.raises(ValueError, match="fold them before"):
        insert_corrections(quantized)
    detect = corrections(quantized)["model.24.m.0"]
    assert isinstance(detect, CorrectedConv2d)
    detect.correction_scale.data[0] = -1.0
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
    with pytest.raises((AttributeError, ValueError, ZeroDivisionError, KeyboardInterrupt)):
        correct(model, batches, loss=loss, progress=False)
    assert list(model.named_modules()) == modules and all(p.requires_grad for p in model.parameters())
    fixed = {name: t for name, t in state.items() if "num_batches" not in name}
    assert all(torch.equal(model.state_dict()[name], t) for name, t in fixed.items())


def test_what_the_paper_leaves_open(quantized, batches):
    """Oracle: counts by hand of 4 batches and of 60 convolutions, 3 without BN; folding stays exact in what it reaches."""
    spec, seen = TrainSpec(learning_rate=1e-3, warmup_steps=0), []
    counted = Counted(batches, seen)
    correct(quantized, counted, spec=spec, choices=Choices(qc_share=0.5, qc_layers="before_bn"), progress=False)
    assert len(seen) == 2 and len(corrections(quantized)) == 57
    affine = {n: p.detach().clone() for n, p in fold(quantized).named_parameters() if n.endswith("bn.weight")}
    correct(quantized, batches, spec=spec, choices=Choices(qc_bn_affine=True), progress=False)
    moved = [name for name, value in affine.items() if not torch.equal(value, quantized.get_parameter(name))]
    assert moved and all(parameter.requires_grad for parameter in quantized.parameters())


def test_an_average_of_the_factors(quantized, batches):
    """Oracle: an average of factors that began at the identity lies nearer to it than the last ones do."""
    spec = TrainSpec(epochs=2, learning_rate=1e-3, schedule="constant", warmup_steps=0)

    def distance(choices):
        model = correct(copy.deepcopy(quantized), batches, spec=spec, choices=choices, progress=False)
        return sum(float((one.correction_scale.detach() - 1).abs().sum()) for one in corrections(model).values())

    assert 0 < distance(Choices(qc_averaged=True)) < distance(Choices())


class Counted:
    """Batches that note each one that they give."""

    def __init__(self, batches, seen):
        self.batches, self.seen = batches, seen

    def __len__(self):
        return len(self.batches)

    def epoch(self, index, start=0):
        for batch in self.batches.epoch(index, start=start):
            self.seen.append(batch)
            yield batch
