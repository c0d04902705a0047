"""How is a detector trained here, float, quantized or corrected?

One loop for all three: forward, loss, backward, clip, step, then the callbacks (the EMA, a checkpoint, a log). What differs
between the three is which parameters the optimizer owns and whether BN statistics move.
"""

import logging
import math
import random
import signal
import threading
import time
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from oscillab.data.batches import to_pixels
from oscillab.quant import held_step_sizes
from oscillab.train.distributed import Group, network
from oscillab.train.portions import portions
from oscillab.train.timing import StepClock

log = logging.getLogger(__name__)


def seed_everything(seed):
    """Seed Python's, numpy's and torch's global generators; data draws from generators of its own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - other libraries draw from the global generator
    torch.manual_seed(seed)


class Callback:
    """What may happen beside training; every method may be left out. `trainer` is the running `Trainer`."""

    def start(self, trainer):
        """Called once before the first step of this call of `fit`."""

    def step_end(self, trainer):
        """Called after every optimizer step."""

    def epoch_end(self, trainer):
        """Called after every pass over the data."""

    def end(self, trainer):
        """Called when `fit` ends, whatever ended it."""


def parameter_groups(model, weight_decay, step_size_rate=1.0):
    """Adam's groups: convolution weights with decay; biases, BN and every step size without, the last at a rate of their own."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if p.ndim > 1 and name.endswith("weight")]
    steps = [p for name, p in trained if "quantizer." in name]
    taken = {id(p) for p in decayed + steps}
    groups = [
        {"params": decayed, "weight_decay": weight_decay, "name": "weights"},
        {"params": [p for _, p in trained if id(p) not in taken], "weight_decay": 0.0, "name": "biases and BN"},
        {"params": steps, "weight_decay": 0.0, "name": "step sizes", "rate_share": step_size_rate},
    ]
    return [{"rate_share": 1.0} | group for group in groups if group["params"]]


class Trainer:
    """One training run: `fit` carries on from `step` to the end of the last epoch, or until `stop()`.

    `loss(outputs, targets, image_size, masks=...)` -> (scalar, items); `batches`: see `oscillab.data.batches.Batches`.
    `bn_fixed`: BN in eval mode, statistics as they are (QC). `members`: the `Group` of processes that train together, each
    on its part of the batches. Where a batch comes in portions, the loss is also given portion=.... Raises
    FloatingPointError when the loss is not finite.
    """

    def __init__(
        self,
        model,
        loss,
        batches,
        spec,
        *,
        callbacks=(),
        bn_fixed=False,
        title="training",
        progress=True,
        members=None,
    ):
        self.model, self.loss, self.batches, self.spec = model, loss, batches, spec
        self.callbacks, self.bn_fixed, self.title, self.progress = list(callbacks), bn_fixed, title, progress
        self.members = members or Group()
        self.device = next(model.parameters()).device
        groups = parameter_groups(model, spec.weight_decay, spec.step_size_rate)
        self.optimizer = torch.optim.AdamW(groups, lr=spec.learning_rate, fused=True)
        self.step = 0
        self.total_steps = spec.epochs * len(batches)
        self.notes = {}  # what the progress bar shows beside the loss
        self.last_loss, self.last_items, self.seconds = math.nan, {}, 0.0
        self.mid_step = False  # whether an error left a step half done: batch norm has moved, the weights have not
        self.clock = StepClock(spec.time_every, device=self.device)
        self._network = self._compiled = None
        self._asked = self._stopping = False

    @property
    def epoch(self):
        """The pass that the next step belongs to, from 0."""
        return self.step // len(self.batches)

    def stop(self):
        """End `fit` after the step that is under way; the state stays usable.

        Several processes agree on it when they next look at the loss, so that none waits for another.
        """
        self._asked = True
        self._stopping = self.members.count == 1

    def fit(self):
        """The trained model, back in eval mode; True in `interrupted` when `stop` or Ctrl-C ended it early."""
        self._asked = self._stopping = False
        started = time.perf_counter()
        self._call("start")
        bar = tqdm(total=self.total_steps, initial=self.step, desc=self.title, disable=not self.progress, mininterval=1)
        try:
            with bar, stop_on_interrupt(self), self._ready():
                while self.step < self.total_steps and not self._stopping:
                    self._run_epoch(bar)
        finally:
            self.seconds += time.perf_counter() - started
            self._call("end")
        self.model.eval()
        if self.members.leader and (text := self.clock.text()):
            log.info("%s: %s", self.title, text)
        return self.model

    @property
    def interrupted(self):
        """Whether the run ended before its last step."""
        return self.step < self.total_steps

    def state_dict(self):
        """What a later run needs to continue to the same result."""
        return {"step": self.step, "optimizer": self.optimizer.state_dict(), "seconds": self.seconds}

    def load_state_dict(self, state):
        """Continue from `state`, made by `state_dict`; the model's own state is loaded apart."""
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.optimizer.load_state_dict(state["optimizer"])

    @contextmanager
    def _ready(self):
        """Within the block the network is wrapped for several processes and compiled, as the spec asks."""
        with network(self.model, self.members, sync_bn=self.spec.sync_bn) as self._network:
            self._compiled = torch.compile(self._network) if self.spec.compile else None
            try:
                yield
            finally:
                self._network = self._compiled = None  # what holds on to the other processes cannot end in peace

    def _run_epoch(self, bar):
        self._set_modes()
        batches = self.batches.epoch(self.epoch, start=self.step % len(self.batches))
        watched = None if self.spec.compile else self.model  # hooks would keep the step from being compiled
        for batch in self.clock.steps(batches, model=watched):
            self._run_step(batch)
            bar.update()
            bar.set_postfix(loss=f"{self.last_loss:.3f}", **self.notes, refresh=False)
            if self._stopping:
                return
        held_step_sizes(self.model)  # says so, once a quantizer, where a step size had to be held positive
        self._call("epoch_end")

    def _set_modes(self):
        self.model.train()
        for module in self.model.modules():
            if self.bn_fixed and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def _run_step(self, batch):
        for group in self.optimizer.param_groups:
            group["lr"] = self.spec.rate_at(self.step, self.total_steps) * group["rate_share"]
        self.mid_step = True
        loss, items = self._add_gradients(batch)
        if self.device.type == "cpu" or self.step % self.spec.check_every == 0:
            self._look(loss, items)
        with self.clock.phase("optimizer"):
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(parameters, self.spec.gradient_clip)
            if self.device.type == "cpu" or self.step % self.spec.check_every == 0:
                self._check_gradient(norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.mid_step = False
        with self.clock.phase("callbacks"):
            self._call("step_end")

    def _add_gradients(self, batch):
        """This process's part of the loss and of its items, detached; the gradient in place is the whole batch's."""
        loss, items = 0.0, {}
        taken = portions(batch, self.spec.accumulate, loss=self.loss, members=self.members)
        whole = len(taken) == 1 and self.members.count == 1
        for portion in taken:
            last = portion is taken[-1]
            with nullcontext() if last or self.members.count == 1 else self._network.no_sync():
                value, found = self._loss_of(portion.batch, {} if whole else {"portion": portion})
                with self.clock.phase("backward"):  # processes average their gradients, which are to be added
                    (value * self.members.count if self.members.count > 1 else value).backward()
            loss = loss + value.detach()
            items = {name: items.get(name, 0.0) + item * portion.share for name, item in found.items()}
        return loss, items

    def _loss_of(self, batch, options):
        """The loss of a batch or a portion of one, with its graph, and its items."""
        with self.clock.phase("forward"):
            images = to_pixels(batch.images, self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.autocast):
                outputs = self._called()(images)
        with self.clock.phase("loss"):
            size = max(images.shape[-2:])
            return self.loss(outputs, batch.targets.to(self.device), size, masks=batch.masks, **options)

    def _called(self):
        """The network as it is called in this step: compiled code does not see hooks that come and go."""
        if self._compiled is not None and not is_hooked(self.model):
            return self._compiled
        return self._network or self.model

    def _look(self, loss, items):
        """Nothing; every process learns the loss of the whole batch, and whether one of them was asked to stop."""
        values = self.members.total([float(loss), *map(float, items.values()), float(self._asked)])
        self.last_loss, asked = values[0], values[-1]
        self.last_items = dict(zip(items, values[1:-1], strict=True))
        self._stopping = asked > 0
        if not math.isfinite(self.last_loss):
            raise FloatingPointError(
                f"the loss became {self.last_loss} at step {self.step} of {self.total_steps}; it must stay finite: "
                f"lower the learning rate (now {self.spec.learning_rate}) or start from an earlier checkpoint"
            )

    def _check_gradient(self, norm):
        """Nothing; raises FloatingPointError, with the weights as they were, where the gradient is not finite."""
        if not torch.isfinite(norm):
            held = ", ".join(held_step_sizes(self.model)) or "none"
            raise FloatingPointError(
                f"the gradient became {float(norm)} at step {self.step} of {self.total_steps}; it must stay finite: lower "
                f"the learning rate (now {self.spec.learning_rate}). Step sizes that had to be held positive: {held}"
            )

    def _call(self, moment):
        for callback in self.callbacks:
            getattr(callback, moment, lambda trainer: None)(self)


def is_hooked(model):
    """Whether a hook looks at the forward pass of a module, of all modules or of one of the model's."""
    if torch.nn.modules.module._has_any_global_hook():
        return True
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@contextmanager
def stop_on_interrupt(trainer):
    """Ctrl-C ends the step that is under way and then the run; a second Ctrl-C ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number, frame):
        log.warning("stopping after this step; press Ctrl-C again to stop at once")
        signal.signal(signal.SIGINT, previous)
        trainer.stop()

    previous = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
