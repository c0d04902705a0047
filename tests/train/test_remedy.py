"""What all remedies share: a count, a place ahead of other hooks, an end, and the published code's schedule."""

import copy
import math

import pytest
import torch

from oscillab.train.remedies import Remedy, cosine_between


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
    """Oracle: the order by hand; a recorder that was attached first still sees what the remedy left. After the block
    nothing is called; the model, a copy of which an average makes, never knows of remedy and optimizer."""
    model, notes = tiny(), []
    held = [set(vars(module)) for module in model.modules()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    handle = optimizer.register_step_post_hook(lambda *_: notes.append("recorder"))
    with Noting(model, optimizer, 4, notes=notes) as remedy:
        train_tiny(model, optimizer, 2)
        assert notes == ["before", "after 1", "recorder", "before", "after 2", "recorder"] and remedy.share == 0.5
        assert [set(vars(module)) for module in model.modules()] == held and copy.deepcopy(model)
    handle.remove()
    train_tiny(model, optimizer, 1)
    assert len(notes) == 6 and not (optimizer._optimizer_step_post_hooks or optimizer._optimizer_step_pre_hooks)


def test_the_baseline_changes_nothing(tiny, train_tiny, same):
    """Oracle: the run without any remedy, bit for bit."""
    plain, treated = tiny(), tiny()
    train_tiny(plain, torch.optim.Adam(plain.parameters(), lr=1e-2), 5)
    optimizer = torch.optim.Adam(treated.parameters(), lr=1e-2)
    remedy = Remedy(treated, optimizer, 5).attach()
    train_tiny(treated, optimizer, 5, remedy=remedy)
    assert same(plain, treated) and remedy.finalize(treated) is treated


class Wrapper(torch.optim.Optimizer):
    """An optimizer around another, as accelerate makes it: of torch's kind, but without what torch's own hooks live in."""

    def __init__(self, optimizer):
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups
        self.step, self.zero_grad = optimizer.step, optimizer.zero_grad


def test_acts_on_the_optimizer_inside_a_wrapper(tiny, train_tiny):
    """Oracle: the count of steps."""
    model = tiny()
    wrapper = Wrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    with Remedy(model, wrapper, 4) as remedy:
        train_tiny(model, wrapper, 2)
    assert remedy.step_count == 2


def test_a_step_that_a_scaler_skipped_is_none(tiny):
    """Oracle: by hand: of 4 steps 2 have an infinite loss, and a fused optimizer is called, but moves nothing."""
    model, notes = tiny().train(), []
    optimizer, scaler = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True), torch.amp.GradScaler("cpu")
    with Noting(model, optimizer, 4, notes=notes) as remedy:
        for step in range(4):
            optimizer.zero_grad()
            factor = float("inf") if step % 2 else 1.0
            scaler.scale(model(torch.rand(2, 3, 10, 10)).square().mean() * factor).backward()
            scaler.step(optimizer)
            scaler.update()
    assert remedy.step_count == 2 and [note for note in notes if note != "before"] == ["after 1", "after 2"]


def test_the_published_cosine():
    """Oracle: the published code's end + (start - end) (1 + cos(pi * relative)) / 2 after a constant first quarter, which is
    the start to the last digit; the end stays beyond the run."""
    for share in (0.3, 0.5, 0.9):
        expected = 0.01 + 0.5 * (0.04 - 0.01) * (1 + math.cos(math.pi * (share - 0.25) / 0.75))
        assert cosine_between(0.04, 0.01, share) == pytest.approx(expected, rel=1e-12)
    assert [cosine_between(0.0, 3.0, share) for share in (0.0, 0.1, 0.25)] == [0.0, 0.0, 0.0]
    assert cosine_between(0.0, 3.0, 1.0) == cosine_between(0.0, 3.0, 1.5) == pytest.approx(3.0, rel=1e-12)
