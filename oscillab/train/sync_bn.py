"""Over which pictures does batch norm take its statistics when a batch is shared by several processes?

Over those of all of them, as one process would: otherwise two processes train another network than one does. Torch has
this for accelerators alone; the few lines for CPUs make the whole path testable without one.
"""

from contextlib import contextmanager

import torch
from torch import nn


class SyncedBatchNorm2d(nn.SyncBatchNorm, nn.BatchNorm2d):
    """Torch's synced batch norm, for accelerators, which stays a BatchNorm2d to those that look for one."""

    process_group = None  # all processes


class CpuSyncedBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm2d whose batch statistics in train mode are those of all processes, for CPUs."""

    def forward(self, x):
        return self._normalized(x) if self.training else super().forward(x)

    @torch.compiler.disable
    def _normalized(self, x):
        """`x` (N, C, H, W) normalized over N of all processes, H and W; moves the running statistics."""
        wide = x.double()  # a variance from sums of squares needs the digits
        sums = torch.stack((wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))))  # (2, C)
        count = sums.new_full((2, 1), x.numel() / x.shape[1])  # values of a channel
        total = _Sum.apply(torch.cat((sums, count), 1))  # (2, C + 1)
        count = total[0, -1].detach()
        mean, square = total[:, :-1] / count
        variance = (square - mean.square()).clamp(min=0)
        self._move(mean.detach(), variance.detach() * count / (count - 1))
        slope = (self.weight / (variance + self.eps).sqrt()).view(1, -1, 1, 1)
        return ((wide - mean.view(1, -1, 1, 1)) * slope + self.bias.view(1, -1, 1, 1)).to(x.dtype)

    @torch.no_grad()
    def _move(self, mean, variance):
        self.num_batches_tracked += 1
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), weight)
        self.running_var.lerp_(variance.to(self.running_var), weight)


class _Sum(torch.autograd.Function):
    """The sum over all processes; each one's loss depends on it, so its gradient is the sum over them as well."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        torch.distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone()
        torch.distributed.all_reduce(grad)
        return grad


@contextmanager
def synced_bn(model):
    """`model` with its BatchNorm2d synced within the block: the same modules, parameters and buffers, another class."""
    norms = [module for module in model.modules() if type(module) is nn.BatchNorm2d]
    for norm in norms:
        norm.__class__ = CpuSyncedBatchNorm2d if norm.weight.device.type == "cpu" else SyncedBatchNorm2d
    try:
        yield model
    finally:
        for norm in norms:
            norm.__class__ = nn.BatchNorm2d
