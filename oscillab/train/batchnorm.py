"""Do the batch norms' running statistics still describe the network that QAT ended with?

An oscillating weight changes its layer's output from step to step, so that a running average describes no network at
all (2203.11086). Re-estimation measures the statistics anew; the divergence says how far off they were.
"""

from itertools import islice

import torch
from torch.nn.modules.batchnorm import _BatchNorm

BATCH_COUNT = 50  # as the code of 2203.11086 has it
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class BnUndo:
    """The running statistics as they were; `undo()` restores every bit, and so does leaving it as a context."""

    def __init__(self, norms):
        self._before = [(getattr(norm, name), getattr(norm, name).clone()) for norm in norms for name in STATISTICS]

    def undo(self):
        """Put the statistics back; a second call changes nothing."""
        for buffer, before in self._before:
            buffer.copy_(before)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.undo()


@torch.no_grad()
def reestimate_bn(model, images, *, count=BATCH_COUNT):
    """The `BnUndo` of what was done: each running mean and variance is now the average over `count` batches.

    `images`: float tensors (N, 3, H, W), pixels in 0..1, training pictures; all of them where there are fewer. Only
    batch norm is in training mode meanwhile. Everything but the running statistics stays as it is. Raises ValueError
    without batch norm or batches; on any error the statistics are as before. Source: the code of 2203.11086.
    """
    norms = batch_norms(model)
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    undo = BnUndo(norms)
    try:
        model.eval()
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # PyTorch's word for a plain average over batches
        for batch in islice(images, count):
            model(batch)
        _keep_untouched(norms, undo)
    except BaseException:
        undo.undo()
        raise
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return undo


def bn_divergence(model, images, *, count=BATCH_COUNT, per_channel=False):
    """How far each batch norm's running statistics are from the true ones, as rows for a DataFrame.

    Rows: `layer`, `kl_mean`, `kl_max` over channels, as Nagel et al. tabulate; or `layer`, `channel`, `kl` with
    `per_channel`. In nats, KL(true || running), outputs taken as normally distributed; the true statistics are those
    of `reestimate_bn`, which is undone.
    """
    kept = set(batch_norms(model))
    norms = {name: module for name, module in model.named_modules() if module in kept}
    running = {name: (norm.running_mean.clone(), norm.running_var + norm.eps) for name, norm in norms.items()}
    with reestimate_bn(model, images, count=count):
        kls = {
            name: kl_of_normals(norm.running_mean, norm.running_var + norm.eps, *running[name])
            for name, norm in norms.items()
        }
    if per_channel:
        return [{"layer": n, "channel": i, "kl": kl} for n, each in kls.items() for i, kl in enumerate(each.tolist())]
    return [{"layer": name, "kl_mean": float(kl.mean()), "kl_max": float(kl.max())} for name, kl in kls.items()]


def kl_of_normals(mean, variance, other_mean, other_variance):
    """KL(N(mean, variance) || N(other_mean, other_variance)) in nats, elementwise.

    >>> kl_of_normals(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(0.0), torch.tensor(2.0))
    tensor(0.2500)
    """
    ratio = variance / other_variance
    return 0.5 * (ratio - 1 - ratio.log() + (mean - other_mean).square() / other_variance)


def batch_norms(model):
    """The batch norms that keep running statistics; raises ValueError when there is none."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        raise ValueError(f"this {type(model).__name__} has no batch norm with running statistics")
    return norms


def _keep_untouched(norms, undo):
    """Counts of batches as before; raises ValueError where no batch came, and puts back norms that no batch reached."""
    reached = [bool(norm.num_batches_tracked) for norm in norms]
    if not any(reached):
        raise ValueError("images is empty: re-estimation needs at least one float tensor (N, 3, H, W)")
    means, variances, counts = (undo._before[i::3] for i in range(3))
    for buffer, before in counts:
        buffer.copy_(before)
    for was_reached, *pairs in zip(reached, means, variances, strict=True):
        for buffer, before in pairs:
            if not was_reached:
                buffer.copy_(before)
