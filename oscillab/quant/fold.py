"""Insert a trainable scale and shift behind convolutions (QC), and fold them away again.

Quantization correction, section 3.3 of 2311.05109; `oscillab.train.correction` trains it.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from .layers import QuantConv2d, check_finite
from .lsq import check_choice

PARTS = ("scale", "shift")
GRANULARITIES = ("per_channel", "per_tensor")


class CorrectedConv2d(nn.Module):
    """A convolution followed by `correction_scale * h + correction_shift`, the identity at its start.

    `correction_scale`, `correction_shift`: (C_out,), or (1,) per tensor.
    """

    def __init__(self, conv: nn.Conv2d, *, granularity: str = "per_channel"):
        super().__init__()
        count = conv.out_channels if granularity == "per_channel" else 1
        self.conv = conv
        self.correction_scale = nn.Parameter(torch.ones(count, dtype=conv.weight.dtype, device=conv.weight.device))
        self.correction_shift = nn.Parameter(torch.zeros_like(self.correction_scale))

    def forward(self, x: Tensor) -> Tensor:
        """Return the corrected output, (N, C_out, H, W)."""
        h: Tensor = self.conv(x)
        return h * self.correction_scale.view(1, -1, 1, 1) + self.correction_shift.view(1, -1, 1, 1)


def insert_corrections(
    model: nn.Module, *, parts: Collection[str] = PARTS, granularity: str = "per_channel", layers: str = "all"
) -> nn.Module:
    """Put QC in place at every convolution of `model`, the only parameters that still train, and return the model.

    `parts`: "scale", "shift" or both; `granularity`: "per_channel" or "per_tensor"; `layers`: "all", or "before_bn" for
    the convolutions that a batch norm follows.
    """
    if not parts or set(parts) - set(PARTS):
        raise ValueError(f"parts must be among {', '.join(PARTS)}, got {', '.join(parts) or 'none'}")
    check_choice("granularity", granularity, GRANULARITIES)
    if corrections(model):
        raise ValueError("the model already holds corrections; fold them before inserting new ones")
    model.requires_grad_(False)
    bns = following_bns(model)
    chosen = [one for one in model.modules() if isinstance(one, nn.Conv2d) and (layers == "all" or one in bns)]
    made = {conv: CorrectedConv2d(conv, granularity=granularity).train(conv.training) for conv in chosen}
    for corrected in made.values():
        corrected.correction_scale.requires_grad_("scale" in parts)
        corrected.correction_shift.requires_grad_("shift" in parts)
    replace_modules(model, made)
    return model


def replace_modules(model: nn.Module, made: Mapping[Any, nn.Module]) -> None:
    """Put modules in the place of others, under every name that those have."""
    for parent in list(model.modules()):
        for name, module in list(parent._modules.items()):
            if module in made:
                setattr(parent, name, made[module])


def corrections(model: nn.Module) -> dict[str, CorrectedConv2d]:
    """Return the corrected convolutions of `model` by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, CorrectedConv2d)}


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """Fold every correction away exactly, in place, and return the model with the modules that it had before `insert_corrections`.

    Before a BN with weight g, bias b and fixed statistics: g' = g * gamma, b' = b + g * (beta + (gamma - 1) * mean) / std.
    Without a BN (the detection convolutions): into the step size, which becomes per-channel, and into the bias.
    Raises ValueError, before anything is changed, when a scale that has no BN to go to is not positive, or when another
    layer has the weight or the convolution that would change.
    """
    check_finite(model)
    bns, found = following_bns(model), corrections(model)
    users = Counter(p for module in model.modules() for p in module._parameters.values())
    users.update(p for one in found.values() for p in one.conv.parameters())  # of a convolution: once a correction
    for name, corrected in found.items():
        if not all(torch.isfinite(p).all() for p in (corrected.correction_scale, corrected.correction_shift)):
            raise ValueError(f"cannot fold {name}: its scale or shift holds nan or inf")
        if corrected in bns:
            continue
        if not (corrected.correction_scale > 0).all():
            raise ValueError(f"cannot fold {name}: a scale without BN must be positive; lower the learning rate of QC")
        if any(users[p] > 2 for p in corrected.conv.parameters(recurse=False)):
            raise ValueError(f"cannot fold {name}: it would change the weight or bias of another layer that shares it")
    for corrected in found.values():
        if corrected in bns:
            _fold_into_bn(corrected, bns[corrected])
        else:
            _fold_into_conv(corrected)
    replace_modules(model, {corrected: corrected.conv for corrected in found.values()})
    return model


def _fold_into_bn(corrected: CorrectedConv2d, bn: nn.BatchNorm2d) -> None:
    """Fold in double precision, so that the one rounding left is that of the result."""
    assert bn.running_var is not None and bn.running_mean is not None
    scale, shift = corrected.correction_scale.double(), corrected.correction_shift.double()
    slope = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    bn.bias.copy_(bn.bias.double() + slope * (shift + (scale - 1) * bn.running_mean.double()))
    bn.weight.copy_(bn.weight.double() * scale)


def _fold_into_conv(corrected: CorrectedConv2d) -> None:
    conv, shift = corrected.conv, corrected.correction_shift
    scale = corrected.correction_scale.expand(conv.out_channels)
    if not isinstance(conv, QuantConv2d):
        conv.weight *= scale.view(-1, 1, 1, 1)
    elif (scale != 1).any():  # a shift alone leaves the step size per tensor
        conv.scale_output(scale)
    if conv.bias is None:
        conv.bias = nn.Parameter(torch.zeros_like(scale))
    conv.bias.copy_(scale * conv.bias + shift)


def following_bns(model: nn.Module) -> dict[nn.Module, nn.BatchNorm2d]:
    """Return, by module, the BN of fixed statistics that takes every output of that module, and no other's.

    Read off the calls in all forward methods (torch.fx); one that cannot be traced is taken to call its own modules alone,
    and what is called there has no BN here: folding into the convolution is exact too.
    """
    users, givers = defaultdict[Any, set[Any]](set), defaultdict[Any, set[Any]](set)
    for parent in model.modules():
        if isinstance(parent, QuantConv2d) or not parent._modules:  # calls none that matters
            continue
        try:
            graph = _Calls(autowrap_modules=()).trace(parent)  # type: ignore[arg-type]  # torch declares a tuple of one
        except Exception:  # whatever a forward method does with a stand-in for its input
            continue
        module_of = {node: parent.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"}
        for node, module in module_of.items():
            users[module] |= {module_of.get(user) for user in node.users}
            givers[module].add(module_of.get(node.args[0]) if node.args else None)
    owners = Counter(p for module in model.modules() for p in module._parameters.values())
    found = {}
    for module, bn in ((module, next(iter(after))) for module, after in users.items() if len(after) == 1):
        fixed = isinstance(bn, nn.BatchNorm2d) and bn.running_var is not None and bn.weight is not None
        if fixed and givers[bn] == {module} and owners[bn.weight] == owners[bn.bias] == 1:
            found[module] = bn
    return found


class _Calls(torch.fx.Tracer):
    """Traces one forward method alone."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True
