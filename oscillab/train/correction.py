"""Correct a quantized network by a scale and shift per channel (QC).

What does one epoch of them repair? Quantization correction of 2311.05109: after QAT every convolution's output h becomes
gamma * h + beta, gamma and beta are trained with everything else fixed, and are folded away (`oscillab.quant.fold`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

from torch import nn

from oscillab.quant.fold import PARTS, corrections, insert_corrections
from oscillab.train.callbacks import MoveEma
from oscillab.train.config import Choices, TrainSpec
from oscillab.train.ddp import World
from oscillab.train.ema import Ema
from oscillab.train.trainer import Trainer
from oscillab.yolo.loss import build_loss

PAPER_SPEC = TrainSpec(epochs=1, learning_rate=1e-4, schedule="constant", warmup_steps=0)
AS_PAPER = Choices()


def correct(
    model: nn.Module,
    batches: Any,
    *,
    spec: TrainSpec = PAPER_SPEC,
    parts: Iterable[str] = PARTS,
    granularity: str = "per_channel",
    choices: Choices = AS_PAPER,
    loss: Callable[..., Any] | None = None,
    progress: bool = True,
    world: World | None = None,
) -> nn.Module:
    """Train QC and return the model in eval mode, not yet folded (in place); `fold` it to get the modules it had before.

    `batches`: training data, see `oscillab.data.batches.Batches`; `spec`: one epoch of Adam at 1e-4 as in the paper;
    `world`: the processes that train together. Each factor moves by about learning rate x steps at most, so a short epoch
    needs a higher rate (0.05 or more in all). BN statistics and everything but the factors stay fixed, unless `choices` say
    otherwise. On an error the model has the modules that it had before. Source: section 3.3 of 2311.05109.
    """
    loss = loss or build_loss(model)  # type: ignore[arg-type]  # a Detector where no loss is given
    spec, batches = replace(spec, weight_decay=0.0), FirstShare(batches, choices.qc_share)
    with training_only(model, ()):
        insert_corrections(model, parts=tuple(parts), granularity=granularity, layers=choices.qc_layers)
        try:
            for module in model.modules() if choices.qc_bn_affine else ():
                if isinstance(module, nn.BatchNorm2d):
                    module.requires_grad_(True)
            trainer = Trainer(model, loss, batches, spec, bn_fixed=True, title="QC", progress=progress, world=world)
            ema = Ema.for_steps(model, trainer.total_steps, ramp=0) if choices.qc_averaged else None
            trainer.callbacks += [MoveEma(ema)] if ema else []
            trainer.fit()
        except BaseException:
            for name, corrected in corrections(model).items():
                model.set_submodule(name, corrected.conv)
            raise
    if ema:
        model.load_state_dict(ema.model.state_dict())
    return model


@contextmanager
def training_only(model: nn.Module, chosen: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let only the parameters `chosen` need gradients within the block; after it those that did before."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        for parameter in chosen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


class FirstShare:
    """The first `share` of the batches of every pass, at least one."""

    def __init__(self, batches: Any, share: float):
        self.batches, self.count = batches, max(1, round(share * len(batches)))

    def __len__(self) -> int:
        return self.count

    def epoch(self, index: int, start: int = 0) -> Iterator[Any]:
        """Return an iterator over the batches of pass `index`, from number `start` on."""
        return islice(self.batches.epoch(index, start=start), self.count - start)
