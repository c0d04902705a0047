"""The sentence that a user reads for each wrong value: what was wrong, what was given, what is allowed."""

import pytest
import torch

from oscillab.train.callbacks import resume_from
from oscillab.train.config import TrainSpec
from oscillab.train.correction import Choices
from oscillab.train.ema import Ema
from oscillab.train.layer_errors import output_errors
from oscillab.train.remedies import Remedy, check_share
from oscillab.train.remedies.controls import bn_affine, correct_bias, reestimate_bn, soft_rounding
from oscillab.train.remedies.dampening import Dampening
from oscillab.train.remedies.freezing import Freezing
from oscillab.train.run import apply_remedy

LAYER = torch.nn.Conv2d(3, 3, 1)
IMAGES = [torch.rand(2, 3, 10, 10)]


def remedy(kind, model, **options):
    steps = options.pop("steps", 4)
    return kind(model, torch.optim.SGD(model.parameters(), lr=0.1), steps, **options)


CASES = [
    (lambda model: TrainSpec(epochs=0), "epochs must be at least 1, got 0"),
    (lambda model: TrainSpec(learning_rate=0), "learning_rate must be in 0 < rate < 1, got 0"),
    (lambda model: TrainSpec(step_size_rate=-1.0), "step_size_rate must be at least 0, got -1.0"),
    (lambda model: TrainSpec(schedule="step"), "schedule must be official, constant, cosine or linear, got step"),
    (lambda model: TrainSpec(final_share=2.0), "final_share must be in 0 <= final_share <= 1, got 2.0"),
    (
        lambda model: TrainSpec(schedule="official").for_network("my net"),
        "got my net: choose constant, cosine or linear",
    ),
    (lambda model: TrainSpec(accumulate=0), "accumulate must be at least 1, got 0"),
    (lambda model: Choices(qc_share=0.0), "qc_share must be in 0 < qc_share <= 1, got 0.0"),
    (lambda model: Choices(qc_layers="some"), "qc_layers must be one of all, before_bn, got some"),
    (lambda model: Ema(model, decay=1.0), "decay must be in 0 <= decay < 1, got 1.0"),
    (lambda model: Ema(model, ramp=-1), "ramp must be 0 or more updates, got -1"),
    (lambda model: Ema(model, parts=("scales",)), "parts must be among weights, step_sizes, buffers, got scales"),
    (lambda model: resume_from("last.pt", None), "nothing to resume: last.pt is missing"),
    (lambda model: check_share("begin", 1), "begin must be in 0 <= begin < 1 .*, got 1"),
    (lambda model: remedy(Remedy, LAYER), "needs a quantized model, this Conv2d has no quantized layer"),
    (lambda model: remedy(Remedy, model, steps=0), "total_steps must be at least 1, got 0"),
    (lambda model: remedy(Dampening, model, weight=0), "weight must be above 0, got 0"),
    (lambda model: remedy(Freezing, model, momentum=0), "momentum must be above 0 and at most 1, got 0"),
    (lambda model: remedy(Freezing, model, thresholds=(0.1,)), "thresholds must be two frequencies of 0 or more"),
    (lambda model: remedy(Freezing, model, begin=1.0), "begin must be in 0 <= begin < 1"),
    (lambda model: apply_remedy(None, "ewgs"), "remedy must be one of none, dampening, freezing, .*, got ewgs"),
    (
        lambda model: output_errors(None, model, IMAGES, at="act"),
        "at must be one of convolution, batch_norm, got 'act'",
    ),
    (lambda model: output_errors(model[:1], model, IMAGES), "must have the quantized one's layers, it lacks 3"),
    (lambda model: output_errors(None, model, []), "images is empty"),
    (lambda model: reestimate_bn(LAYER, IMAGES), "this Conv2d has no batch norm with running statistics"),
    (lambda model: correct_bias(model, []), "images is empty: bias correction needs"),
    (lambda model: bn_affine(LAYER, []), "this Conv2d has no batch norm to tune"),
    (lambda model: soft_rounding(model, k=0.6), "k must be in 0 <= k <= 0.5 bins, got 0.6"),
    (lambda model: soft_rounding(model, parts="w"), "parts must be among weights, activations, got w"),
    (lambda model: soft_rounding(LAYER), "has no quantized layer"),
]


@pytest.mark.parametrize("call, words", CASES, ids=[words for _, words in CASES])
def test_words(call, words, tiny):
    """Oracle: the sentence; the model's tensors and modules are as they were."""
    model = tiny()
    before, modules = {name: t.clone() for name, t in model.state_dict().items()}, list(model.modules())
    with pytest.raises(ValueError, match=words):
        call(model)
    after = model.state_dict()
    assert list(model.modules()) == modules and all(torch.equal(after[name], t) for name, t in before.items())
