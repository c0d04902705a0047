"""Would something simpler than QC have done?

Two controls that the paper leaves out: train the batch norms' own scale and shift for as long as QC trains its factors
(the same class of functions, where a convolution has a batch norm behind it), and subtract each channel's mean error
without training anything.
"""

from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from oscillab.quant import eval_mode, quantizers_off
from oscillab.quant.fold import corrections, fold, insert
from oscillab.train.correct import PAPER_SPEC
from oscillab.train.errors import outputs_of, watched_outputs
from oscillab.train.trainer import Trainer
from oscillab.yolo.loss import build_loss


def tune_bn(model, batches, *, spec=PAPER_SPEC, biases=False, loss=None, progress=True):
    """The model in eval mode, its batch norms' weight and bias trained and nothing else (in place).

    `batches`, `spec`, `loss`: as for `correct`, so that the two compare. `biases`: train the convolutions' biases too,
    which is what the detection convolutions have in place of a batch norm. Running statistics stay fixed.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        raise ValueError(f"this {type(model).__name__} has no batch norm to tune")
    chosen = [parameter for norm in norms for parameter in norm.parameters()]
    if biases:
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        chosen += [module.bias for module in convolutions if module.bias is not None]
    spec, loss = replace(spec, weight_decay=0.0), loss or build_loss(model)
    with training_only(model, chosen):
        Trainer(model, loss, batches, spec, bn_fixed=True, title="BN affine", progress=progress).fit()
    return model


@torch.no_grad()
def correct_bias(model, images, *, float_model=None):
    """The model with each channel's mean output error against the float network subtracted and folded (in place).

    `images`: float tensors (N, 3, H, W), which are joined to one batch; some tens of training pictures. `float_model`:
    the float network; None is `model` itself with its quantizers off, which after QAT is the nearer reference. Layers
    are corrected in the order in which they run, each seeing what the ones before it now give (empirical bias
    correction of 1906.04721). The shift goes where QC's goes: into batch norm, or the bias.
    """
    if not (batches := list(images)):
        raise ValueError("images is empty: bias correction needs at least one float tensor (N, 3, H, W)")
    batch = torch.cat(batches)
    reference = model if float_model is None else float_model
    expected = channel_means(reference, batch)

    def subtract(corrected, inputs, output):
        error = output.mean((0, 2, 3)) - expected[names[corrected]]  # (C_out,)
        corrected.correction_shift.copy_(-error)
        return output - error.view(1, -1, 1, 1)

    with training_only(model, []), eval_mode(model):
        insert(model, parts=("shift",))
        names = {module: name for name, module in corrections(model).items()}
        hooks = [module.register_forward_hook(subtract) for module in names]
        try:
            model(batch)
        finally:
            for hook in hooks:
                hook.remove()
            fold(model)
    return model


def channel_means(model, batch):
    """The mean output (C_out,) of each convolution of the float network, its quantizers off, by name."""
    with eval_mode(model), quantizers_off(model):
        outputs = outputs_of(model, watched_outputs(model, at="convolution"), batch)
    return {name: output.mean((0, 2, 3)) for name, output in outputs.items()}


@contextmanager
def training_only(model, chosen):
    """Nothing; within the block only the parameters `chosen` need gradients, after it those that did before."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        for parameter in chosen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
