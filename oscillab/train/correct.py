"""What does one epoch of a per-channel scale and shift repair, and where does it go afterwards?

Quantization correction (QC) of 2311.05109: after QAT every convolution's output h becomes gamma * h + beta, gamma and beta
are trained for one epoch with everything else fixed, and are then folded away, so that inference costs nothing more.
"""

from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import torch
from torch import nn

from oscillab.quant import QuantConv2d
from oscillab.train.callbacks import MoveEma
from oscillab.train.ema import Ema, decay_for
from oscillab.train.spec import TrainSpec
from oscillab.train.trainer import Trainer
from oscillab.yolo.objective import loss_for

PAPER_SPEC = TrainSpec(epochs=1, learning_rate=1e-4, schedule="constant", warmup_steps=0)
PARTS = ("scale", "shift")
GRANULARITIES = ("per_channel", "per_tensor")
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


class CorrectedConv2d(nn.Module):
    """A convolution followed by `correction_scale * h + correction_shift`, the identity at its start.

    `correction_scale`, `correction_shift`: (C_out,), or (1,) per tensor.
    """

    def __init__(self, conv, *, granularity="per_channel"):
        super().__init__()
        count = conv.out_channels if granularity == "per_channel" else 1
        self.conv = conv
        self.correction_scale = nn.Parameter(torch.ones(count, dtype=conv.weight.dtype, device=conv.weight.device))
        self.correction_shift = nn.Parameter(torch.zeros_like(self.correction_scale))

    def forward(self, x):
        """The corrected output, (N, C_out, H, W)."""
        h = self.conv(x)
        return h * self.correction_scale.view(1, -1, 1, 1) + self.correction_shift.view(1, -1, 1, 1)


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
    loss, fixed = loss or loss_for(model), {"bn_fixed": True, "title": "QC"}
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


def insert(model, *, parts=PARTS, granularity="per_channel", layers="all"):
    """The model with QC in place at every convolution, the only parameters that still train (in place).

    `parts`: "scale", "shift" or both; `granularity`: "per_channel" or "per_tensor"; `layers`: "all", or "before_bn" for
    the convolutions that a batch norm follows.
    """
    if not parts or set(parts) - set(PARTS):
        raise ValueError(f"parts must be among {', '.join(PARTS)}, got {', '.join(parts) or 'none'}")
    if granularity not in GRANULARITIES:
        raise ValueError(f"granularity must be one of {', '.join(GRANULARITIES)}, got {granularity}")
    if corrections(model):
        raise ValueError("the model already holds corrections; fold them before inserting new ones")
    model.requires_grad_(False)
    places = _convolutions(model)
    if layers == "before_bn":
        places = [place for place in places if following_bn(model, place[2]) is not None]
    for parent, name, conv in places:
        corrected = CorrectedConv2d(conv, granularity=granularity)
        corrected.correction_scale.requires_grad_("scale" in parts)
        corrected.correction_shift.requires_grad_("shift" in parts)
        corrected.train(conv.training)
        setattr(parent, name, corrected)
    return model


def corrections(model):
    """The corrected convolutions of the model by name; empty before `insert` and after `fold`."""
    return {name: module for name, module in model.named_modules() if isinstance(module, CorrectedConv2d)}


@torch.no_grad()
def fold(model):
    """The model with every correction folded away exactly: the modules are those of the model before `insert` (in place).

    Before a BN with weight g, bias b and fixed statistics: g' = g * gamma, b' = b + g * (beta + (gamma - 1) * mean) / std.
    Without a BN (the detection convolutions): into the step size, which becomes per-channel, and into the bias.
    Raises ValueError, before anything is changed, when a scale that has no BN to go to is not positive.
    """
    places = [
        (parent, name, module) for parent, name, module in _children(model) if isinstance(module, CorrectedConv2d)
    ]
    for _, name, corrected in places:
        if following_bn(model, corrected) is None and not (corrected.correction_scale > 0).all():
            raise ValueError(
                f"cannot fold {name}: a scale without BN must be positive; correct with a lower learning rate"
            )
    for parent, name, corrected in places:
        bn = following_bn(model, corrected)
        if bn is None:
            _fold_into_conv(corrected)
        else:
            _fold_into_bn(corrected, bn)
        setattr(parent, name, corrected.conv)
    return model


def _fold_into_bn(corrected, bn):
    """In double precision, so that the one rounding left is that of the result."""
    scale, shift = corrected.correction_scale.double(), corrected.correction_shift.double()
    slope = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    bn.bias.copy_(bn.bias.double() + slope * (shift + (scale - 1) * bn.running_mean.double()))
    bn.weight.copy_(bn.weight.double() * scale)


def _fold_into_conv(corrected):
    conv, shift = corrected.conv, corrected.correction_shift
    scale = corrected.correction_scale.expand(conv.out_channels)
    if not isinstance(conv, QuantConv2d):
        conv.weight *= scale.view(-1, 1, 1, 1)
    elif (scale != 1).any():  # a shift alone leaves the step size per tensor
        conv.scale_output(scale)
    bias = torch.zeros_like(scale) if conv.bias is None else conv.bias
    folded = scale * bias + shift
    if conv.bias is None:
        conv.bias = nn.Parameter(folded)
    else:
        conv.bias.copy_(folded)


def following_bn(model, corrected):
    """The BN that stands right after the convolution among its parent's children, or None."""
    for parent in model.modules():
        children = list(parent.children())
        if corrected in children:
            after = children[children.index(corrected) + 1 :][:1]
            return after[0] if after and isinstance(after[0], nn.BatchNorm2d) else None
    return None


def _children(model):
    return [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]


def _convolutions(model):
    return [(parent, name, child) for parent, name, child in _children(model) if isinstance(child, nn.Conv2d)]
