"""What all remedies share: a count, a place ahead of other hooks, and an end."""

import copy

import pytest
import torch

from oscillab.train.remedies import Remedy


class Noting(Remedy):
    """Notes its moments."""

    def __init__(self, *arguments, notes):
        self.notes = notes
        super().__init__(*arguments)

    def before_step(self):
        self.notes.append("before")

    def after_step(self):
        self.notes.append(f"after {self.step_count}")


def test_acts_ahead_of_hooks_that_were_there_before(tiny, train_tiny):
    """Oracle: the order by hand; a recorder that was attached first still sees what the remedy left."""
    model, notes = tiny(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizer.register_step_post_hook(lambda *_: notes.append("recorder"))
    remedy = Noting(model, optimizer, 4, notes=notes).attach()
    train_tiny(model, optimizer, 2)
    assert notes == ["before", "after 1", "recorder", "before", "after 2", "recorder"]
    assert remedy.share == 0.5


def test_removed_is_removed(tiny, train_tiny):
    """Oracle: an invariant; after the block nothing is called, and the optimizer has the hooks that it had."""
    model, notes = tiny(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Noting(model, optimizer, 4, notes=notes):
        train_tiny(model, optimizer, 1)
    train_tiny(model, optimizer, 2)
    assert notes == ["before", "after 1"]
    assert not optimizer._optimizer_step_post_hooks and not optimizer._optimizer_step_pre_hooks


def test_the_baseline_changes_nothing(tiny, train_tiny):
    """Oracle: the run without any remedy, bit for bit."""
    plain, treated = tiny(), tiny()
    train_tiny(plain, torch.optim.Adam(plain.parameters(), lr=1e-2), 5)
    optimizer = torch.optim.Adam(treated.parameters(), lr=1e-2)
    remedy = Remedy(treated, optimizer, 5).attach()
    train_tiny(treated, optimizer, 5, remedy=remedy)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.state_dict().values(), treated.state_dict().values(), strict=True)
    )
    assert remedy.finalize(treated) is treated


def test_nothing_hangs_on_the_model(tiny):
    """Oracle: an invariant; a copy of the model, as an average makes it, knows nothing of remedy and optimizer."""
    model = tiny()
    before = set(vars(model)), [set(vars(module)) for module in model.modules()]
    Remedy(model, torch.optim.SGD(model.parameters(), lr=0.01), 4).attach()
    assert (set(vars(model)), [set(vars(module)) for module in model.modules()]) == before
    copy.deepcopy(model)


def test_bad_input(tiny):
    """Oracle: the sentences a user reads."""
    plain = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match="needs a quantized model, this Sequential has no quantized layer"):
        Remedy(plain, torch.optim.SGD(plain.parameters(), lr=0.1), 4)
    model = tiny()
    with pytest.raises(ValueError, match="total_steps must be at least 1, got 0"):
        Remedy(model, torch.optim.SGD(model.parameters(), lr=0.1), 0)
