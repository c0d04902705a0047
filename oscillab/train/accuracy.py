"""How well does a network find objects, computed as its file will compute it?

COCO's mean average precision (`oscillab.data.evaluate`) of a quantized network in its exact form (`oscillab.quant.exact`), so
that the figure does not depend on the batch size, the thread count or the program, and an exported file has the same.
"""

from oscillab.data import evaluate as judging
from oscillab.quant import is_quantized
from oscillab.quant.exact import exact


def as_measured(model):
    """The network that is measured in place of `model`: its exact form where it is quantized, else itself."""
    return exact(model) if is_quantized(model) else model


def evaluate(model, dataset, **options):
    """The `Evaluation` of `as_measured(model)` on every image of a data set; the model stays as it is.

    Options and errors: those of `oscillab.data.evaluate.evaluate` (size, batch_size, conf, iou, max_boxes, rectangular,
    progress, members, judge).
    """
    return judging.evaluate(as_measured(model), dataset, **options)
