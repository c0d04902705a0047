"""What can be tried against the side-effects of oscillations, as lists to loop over?

Four tables of names: `REMEDIES` act during training, `CONTROLS` after it, `AVERAGES` are parts of an `Ema`,
`QUANTIZERS` are fields of a `QuantSpec`. "none" is in the first two, so that the baseline is one more row.
"""

from functools import partial
from itertools import count as counted

from oscillab.data.batches import to_pixels
from oscillab.quant.fold import fold
from oscillab.train.batchnorm import BATCH_COUNT, reestimate_bn
from oscillab.train.controls import correct_bias, tune_bn
from oscillab.train.correct import AS_PAPER, PAPER_SPEC, correct
from oscillab.train.dampen import Dampening
from oscillab.train.ema import PARTS
from oscillab.train.freeze import Freezing
from oscillab.train.freeze_scales import ScaleFreezing
from oscillab.train.q_ema import QEma
from oscillab.train.remedy import Remedy

BIAS_BATCH_COUNT = 4  # batches whose mean error bias correction subtracts

REMEDIES = {
    "none": Remedy,
    "dampening": Dampening,
    "freezing": Freezing,
    "scale_freezing": ScaleFreezing,
    "q_ema": QEma,
}

AVERAGES = {
    "ema": PARTS,
    "ema_weights": ("weights",),
    "ema_step_sizes": ("step_sizes",),
    "ema_buffers": ("buffers",),
}

QUANTIZERS = {
    "lsq": {},
    "per_channel": {"weight_granularity": "per_channel"},
    "lsq_plus": {"activation": "affine"},
    "rounded_mask": {"gradient_mask": "rounded"},
}


def treat(trainer, name, **options):
    """The remedy of that name, at work in `trainer` (an `oscillab.train.trainer.Trainer` that has not begun).

    Keep its `state_dict` with the run's. Raises ValueError for a name that is not in `REMEDIES`.
    """
    if name not in REMEDIES:
        raise ValueError(f"remedy must be one of {', '.join(REMEDIES)}, got {name}")
    remedy = REMEDIES[name](trainer.model, trainer.optimizer, trainer.total_steps, **options)
    trainer.loss = remedy.loss(trainer.loss)
    return remedy


def nothing(model, batches, **_):
    """The model as it is."""
    return model


def bn_reestimation(model, batches, **_):
    """The model with its batch norm statistics measured anew on `BATCH_COUNT` batches."""
    reestimate_bn(model, pixels(model, batches, BATCH_COUNT))
    return model


def bias_correction(model, batches, *, float_model=None, **_):
    """The model with each channel's mean error against `float_model` (None: its own quantizers off) subtracted."""
    return correct_bias(model, pixels(model, batches, BIAS_BATCH_COUNT), float_model=float_model)


def bn_affine(model, batches, *, spec=PAPER_SPEC, progress=True, biases=False, **_):
    """The model with the scale and shift of its batch norms trained as QC's factors are."""
    return tune_bn(model, batches, spec=spec, biases=biases, progress=progress)


def qc(
    model,
    batches,
    *,
    spec=PAPER_SPEC,
    choices=AS_PAPER,
    progress=True,
    parts=("scale", "shift"),
    granularity="per_channel",
    **_,
):
    """The model with QC trained and folded."""
    options = {"parts": parts, "granularity": granularity, "choices": choices, "progress": progress}
    return fold(correct(model, batches, spec=spec, **options))


# each is called as control(model, batches, float_model=None, spec=..., choices=..., progress=...); gives it changed
CONTROLS = {
    "none": nothing,
    "bn_reestimation": bn_reestimation,
    "bias_correction": bias_correction,
    "bn_affine": bn_affine,
    "bn_affine_and_biases": partial(bn_affine, biases=True),
    "qc": qc,
    "qc_scale": partial(qc, parts=("scale",)),
    "qc_shift": partial(qc, parts=("shift",)),
    "qc_per_tensor": partial(qc, granularity="per_tensor"),
}


def pixels(model, batches, count):
    """`count` training batches as float pixels on the model's device, going on to the next epoch where one is short."""
    device, given = next(model.parameters()).device, 0
    for epoch in counted():
        for batch in batches.epoch(epoch):
            if given == count:
                return
            yield to_pixels(batch.images, device)
            given += 1
