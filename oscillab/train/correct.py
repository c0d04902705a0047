"""What does one epoch of a per-channel scale and shift repair, and where does it go afterwards?

Quantization correction (QC) of 2311.05109: after QAT every convolution's output h becomes gamma * h + beta, gamma and beta
are trained for one epoch with everything else fixed, and are then folded away, so that inference costs nothing more.
"""

from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from torch import nn

from oscillab.quant.fold import PARTS, insert
from oscillab.train.callbacks import MoveEma
from oscillab.train.ema import Ema, decay_for
from oscillab.train.spec import TrainSpec
from oscillab.train.trainer import Trainer
from oscillab.yolo.loss import build_loss

PAPER_SPEC = TrainSpec(epochs=1, learning_rate=1e-4, schedule="constant", warmup_steps=0)
LAYERS = ("all", "before_bn")


@dataclass(frozen=True)
class Choices:
    """What the paper leaves open about QC, each with the choice that is made here."""

    qc_share: float = 1.0
    """of the training batches of each pass; the paper's calibration set is 'small' and 'also part of the training set'"""
    qc_layers: Literal["all", "before_bn"] = "all"
    """'before_bn' leaves out the detection convolutions, which have no batch norm to fold into"""
    qc_averaged: bool = False
    """keep an average of the factors, whose horizon is a quarter of the passes, and take it at the end"""
    qc_bn_affine: bool = False
    """train the batch norms' own scale and shift with the factors"""

    def __post_init__(self):
        if not 0 < self.qc_share <= 1:
            raise ValueError(f"qc_share must be in 0 < qc_share <= 1, got {self.qc_share}")
        if self.qc_layers not in LAYERS:
            raise ValueError(f"qc_layers must be one of {', '.join(LAYERS)}, got {self.qc_layers}")


AS_PAPER = Choices()


def correct(
    model,
    batches,
    *,
    spec=PAPER_SPEC,
    parts=PARTS,
    granularity="per_channel",
    choices=AS_PAPER,
    loss=None,
    progress=True,
    members=None,
):
    """The model with QC trained but not yet folded, in eval mode (in place); `fold` it to get the modules it had before.

    `batches`: training data, see `oscillab.data.batches.Batches`; `spec`: one epoch of Adam at 1e-4 as in the paper;
    `members`: the `Group` of processes that train together. Each
    factor moves by about learning rate x steps at most, so a short epoch needs a higher rate (0.05 or more in all).
    BN statistics and everything but the factors stay fixed, unless `choices` say otherwise. Source: section 3.3 of
    2311.05109.
    """
    flags = [(p, p.requires_grad) for p in model.parameters()]
    insert(model, parts=parts, granularity=granularity, layers=choices.qc_layers)
    if choices.qc_bn_affine:
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.requires_grad_(True)
    spec, batches = replace(spec, weight_decay=0.0), PartOf(batches, choices.qc_share)
    loss, fixed = loss or build_loss(model), {"bn_fixed": True, "title": "QC"}
    trainer = Trainer(model, loss, batches, spec, progress=progress, members=members, **fixed)
    ema = Ema(model, decay=decay_for(trainer.total_steps), ramp=0) if choices.qc_averaged else None
    trainer.callbacks += [MoveEma(ema)] if ema else []
    trainer.fit()
    if ema:
        model.load_state_dict(ema.model.state_dict())
    for p, flag in flags:
        p.requires_grad_(flag)
    return model


class PartOf:
    """The first `share` of the batches of every pass, at least one."""

    def __init__(self, batches, share):
        self.batches, self.count = batches, max(1, round(share * len(batches)))

    def __len__(self):
        return self.count

    def epoch(self, index, start=0):
        """An iterator over the batches of pass `index`, from number `start` on."""
        return islice(self.batches.epoch(index, start=start), self.count - start)
