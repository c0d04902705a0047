"""Train a detector, float, quantized or corrected, in one loop.

What differs between the three is which parameters the optimizer owns and whether BN statistics move.
"""

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from oscillab.data.batches import to_pixels
from oscillab.quant import held_step_sizes
from oscillab.quant import step_sizes as step_sizes_of
from oscillab.quant.hooks import is_hooked
from oscillab.train.callbacks import stop_on_interrupt
from oscillab.train.config import TrainSpec
from oscillab.train.ddp import World, data_parallel, micro_batches
from oscillab.train.remedies import warn_untrained


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators; data draws from generators of its own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - other libraries draw from the global generator
    torch.manual_seed(seed)


def parameter_groups(model: nn.Module, weight_decay: float, step_size_rate: float = 1.0) -> list[dict[str, Any]]:
    """Return Adam's groups: convolution weights with decay; biases, BN and step sizes without, the last at their own rate."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if p.ndim > 1 and name.endswith("weight")]
    own = {id(p) for p in step_sizes_of(model).values()}
    steps = [p for _, p in trained if id(p) in own]
    taken = {id(p) for p in decayed + steps}
    groups = [
        {"params": decayed, "weight_decay": weight_decay, "name": "weights"},
        {"params": [p for _, p in trained if id(p) not in taken], "weight_decay": 0.0, "name": "biases and BN"},
        {"params": steps, "weight_decay": 0.0, "name": "step sizes", "rate_share": step_size_rate},
    ]
    return [{"rate_share": 1.0} | group for group in groups if group["params"]]


class Trainer:
    """One training run: `fit` carries on from `step` to the end of the last epoch, or until `stop()`.

    `loss(outputs, targets, image_size, masks=...)` -> (scalar, items), given micro_batch=... too where a batch is split;
    `batches`: see `oscillab.data.batches.Batches`; `callbacks`: see `oscillab.train.callbacks`. `bn_fixed`: BN in eval mode,
    statistics as they are (QC). `world`: the processes that train together, each on its part of the batches. Raises
    FloatingPointError when loss or gradient is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., tuple[Tensor, dict[str, Tensor]]],
        batches: Any,
        spec: TrainSpec,
        *,
        callbacks: Iterable[Any] = (),
        bn_fixed: bool = False,
        title: str = "training",
        progress: bool = True,
        world: World | None = None,
    ):
        self.model, self.loss, self.batches = model, loss, batches
        self.spec = spec = spec.for_network(getattr(model, "name", ""))
        self.callbacks, self.bn_fixed, self.title, self.progress = list(callbacks), bn_fixed, title, progress
        self.world, self.device = world or World(), next(model.parameters()).device
        groups = parameter_groups(model, spec.weight_decay, spec.step_size_rate)
        self.optimizer = torch.optim.AdamW(groups, lr=spec.learning_rate, fused=True)
        self.step, self.total_steps = 0, spec.epochs * len(batches)
        self.notes: dict[str, Callable[[], Any]] = {}  # what the progress bar shows beside the loss
        self.last_loss, self.seconds = math.nan, 0.0
        self.last_items: dict[str, float] = {}
        self.mid_step = False  # whether an error left a step half done: batch norm has moved, the weights have not
        self._network: Any = model
        self._compiled: Any = None

    @property
    def interrupted(self) -> bool:
        """Whether the run ended before its last step."""
        return self.step < self.total_steps

    def stop(self) -> None:
        """End `fit` after the step that is under way, in every process."""
        self._stop_asked = True

    def fit(self) -> nn.Module:
        """Train and return the model, in eval mode; `interrupted` is True when `stop` or Ctrl-C ended it early."""
        self._stop_asked, started = False, time.perf_counter()
        warn_untrained(self.model, self.optimizer)
        self._call("start")
        bar = tqdm(total=self.total_steps, initial=self.step, desc=self.title, disable=not self.progress, mininterval=1)
        try:
            with bar, stop_on_interrupt(self), self.ready():
                while self.interrupted and not self._stops():
                    self._run_epoch(bar)
        finally:
            self.seconds += time.perf_counter() - started
            self._call("end")
        return self.model.eval()

    def train_step(self, batch: Any) -> None:
        """Take one optimizer step on a `Batch`: forward, backward, clip, step, callbacks."""
        train_mode(self.model, bn_fixed=self.bn_fixed)
        for group in self.optimizer.param_groups:
            group["lr"] = self.spec.rate_at(self.step, self.total_steps) * group["rate_share"]
        self.mid_step = True
        loss, items = self.backward(batch)
        if looks := self._looks():
            self.last_loss, *values = self.world.sum([float(loss), *map(float, items.values())])
            self.last_items = dict(zip(items, values, strict=True))
            if not math.isfinite(self.last_loss):
                raise self._not_finite("loss", self.last_loss, " or start from an earlier checkpoint")
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.spec.gradient_clip)
        if looks and not torch.isfinite(norm):
            held = ", ".join(held_step_sizes(self.model)) or "none"
            raise self._not_finite("gradient", float(norm), f". Step sizes that had to be held positive: {held}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step, self.mid_step = self.step + 1, False
        self._call("step_end")

    def backward(self, batch: Any) -> tuple[Tensor, dict[str, Any]]:
        """Add the whole batch's gradient; return this process's part of the loss and of its items, detached."""
        items: dict[str, Any] = {}
        loss, size = torch.zeros(()), self.world.size
        parts = micro_batches(batch, self.spec.accumulate, loss=self.loss, world=self.world)
        whole = len(parts) == 1 and size == 1
        for part in parts:
            with nullcontext() if part is parts[-1] or size == 1 else self._network.no_sync():
                value, found = self._loss_of(part.batch, {} if whole else {"micro_batch": part})
                (value * size if size > 1 else value).backward()  # processes average gradients, which are to be added
            loss = value.detach() if part is parts[0] else loss + value.detach()
            items = {name: items.get(name, 0.0) + item * part.share for name, item in found.items()}
        return loss, items

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Wrap the network for several processes and compile it, as the spec asks, within the block."""
        with data_parallel(self.model, self.world, sync_bn=self.spec.sync_bn) as self._network:
            self._compiled = torch.compile(self._network) if self.spec.compile else None
            try:
                yield
            finally:
                self._network, self._compiled = self.model, None  # what holds on to other processes cannot end in peace

    def state_dict(self) -> dict[str, Any]:
        """Return what a later run needs to continue to the same result, beside the model's state."""
        return {"step": self.step, "optimizer": self.optimizer.state_dict(), "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, made by `state_dict`."""
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _run_epoch(self, bar: tqdm) -> None:
        index, start = divmod(self.step, len(self.batches))
        for batch in self.batches.epoch(index, start=start):
            self.train_step(batch)
            bar.update()
            notes = {name: note() for name, note in self.notes.items()}
            bar.set_postfix(loss=f"{self.last_loss:.3f}", **notes, refresh=False)
            if self._stops():
                return
        held_step_sizes(self.model)  # says so, once a quantizer, where a step size had to be held positive
        self._call("epoch_end")

    def _loss_of(self, batch: Any, options: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        images = to_pixels(batch.images, self.device)
        # compiled code does not see hooks that come and go
        network = self._network if self._compiled is None or is_hooked(self.model) else self._compiled
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.autocast):
            try:
                outputs = network(images)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                words = "leave it out with drop_last, or choose another batch_size or size"
                given = f"a batch of {len(images)} image(s) of {images.shape[-1]} pixels does not give"
                raise ValueError(f"batch norm needs more than one value per channel, which {given}: {words}") from error
        return self.loss(outputs, batch.targets.to(self.device), max(images.shape[-2:]), masks=batch.masks, **options)

    def _stops(self) -> bool:
        """Return whether the run was asked to stop; several processes agree on it where they look at the loss."""
        return (self.world.size == 1 or self._looks()) and self.world.sum([self._stop_asked])[0] > 0

    def _looks(self) -> bool:
        return self.device.type == "cpu" or self.step % self.spec.check_every == 0  # a GPU waits for each look

    def _not_finite(self, what: str, value: float, more: str) -> FloatingPointError:
        return FloatingPointError(
            f"the {what} became {value} at step {self.step} of {self.total_steps}; it must stay finite: "
            f"lower the learning rate (now {self.spec.learning_rate}){more}"
        )

    def _call(self, moment: str) -> None:
        for callback in self.callbacks:
            getattr(callback, moment, lambda trainer: None)(self)


def train_mode(model: nn.Module, *, bn_fixed: bool = False) -> None:
    """Put the model in train mode, its batch norms in eval mode where `bn_fixed`."""
    model.train()
    for module in model.modules() if bn_fixed else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
