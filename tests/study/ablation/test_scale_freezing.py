"""Step sizes that are held do not change a bit, while everything else goes on training."""

import copy

import pytest
import torch

from oscillab.quant import step_sizes
from oscillab.study.ablation.scale_freezing import ScaleFreezing


def frozen_run(model, steps=8, **options):
    """AdamW with decay on everything, momentum included, and step sizes that stop half-way."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.3)
    return optimizer, ScaleFreezing(model, optimizer, steps, **({"begin": 0.5} | options)).attach()


def copies(model):
    return {name: p.detach().clone() for name, p in step_sizes(model).items()}


def test_held_to_the_bit_from_half_time_on(tiny, train_tiny):
    """Oracle: the step sizes after step 4 of 8; Adam's momentum and weight decay move none of them any more."""
    model, seen, weights = tiny(activation="affine"), [], []
    optimizer, _ = frozen_run(model)

    def look(step):
        seen.append(copies(model))
        weights.append(model[0].weight.detach().clone())

    train_tiny(model, optimizer, 8, each=look)
    for name in seen[0]:
        assert not torch.equal(seen[0][name], seen[3][name]), name
        assert all(torch.equal(seen[3][name], later[name]) for later in seen[4:]), name
    assert not torch.equal(weights[6], weights[7])


@pytest.mark.parametrize("part, kind", [("weights", "weight_quantizer"), ("activations", "input_quantizer")])
def test_one_part_alone(tiny, train_tiny, part, kind):
    """Oracle: an invariant; the part that is named stands still, the other moves."""
    model = tiny()
    optimizer, _ = frozen_run(model, begin=0.0, parts=(part,))
    before = copies(model)
    train_tiny(model, optimizer, 3)
    after = copies(model)
    assert {name for name in before if torch.equal(before[name], after[name])} == {n for n in before if kind in n}


def test_resumes_and_releases(tiny, train_tiny):
    """Oracle: a resumed run holds what the first held; after `remove` the step sizes learn again."""
    model = tiny()
    optimizer, remedy = frozen_run(model)
    train_tiny(model, optimizer, 5)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.requires_grad_(True)
    second, resumed = frozen_run(other)
    resumed.load_state_dict(remedy.state_dict())
    before = copies(other)
    train_tiny(other, second, 1)
    assert all(torch.equal(before[name], after) for name, after in copies(other).items())
    resumed.remove()
    train_tiny(other, second, 1)
    assert not any(torch.equal(before[name], after) for name, after in copies(other).items())


def test_bad_options(tiny):
    """Oracle: the sentence a user reads."""
    with pytest.raises(ValueError, match="parts must be among weights, activations, got scales"):
        frozen_run(tiny(), parts=("scales",))
