"""With which weights and which anchors does `pretrain` begin?

Weights of another detector save most of the training where its layers are the same ones (a detector's backbone and neck
in the network that segments). Anchors are changed only where the user asks for it, and whether they should be is said.
"""

import logging

import torch

from oscillab.quant import is_quantized
from oscillab.yolo import files
from oscillab.yolo.anchors import ENOUGH, box_sizes, fit, suitability

log = logging.getLogger(__name__)


def load_matching_weights(model, path):
    """The number of tensors that `model` took (in place) from the float checkpoint at `path`: all of its name and shape.

    BN statistics and anchors are among them; the others stay as they are. Raises ValueError for a quantized checkpoint,
    for one whose BatchNorms are folded, and where nothing matches.
    """
    source = files.load(path)
    given, own = source.state_dict(), model.state_dict()
    if is_quantized(source) or not any(key.endswith("running_mean") for key in given):
        kind = "quantized" if is_quantized(source) else "fused (its BatchNorms are folded away)"
        raise ValueError(f"{path} is {kind}; start from a float checkpoint with BatchNorms")
    taken = {key: given[key] for key, value in own.items() if key in given and given[key].shape == value.shape}
    if not taken:
        raise ValueError(f"{path}: no tensor of {source.name} has the name and shape of one of {model.name}'s")
    model.load_state_dict(taken, strict=False)
    share = sum(map(torch.numel, taken.values())) / sum(map(torch.numel, own.values()))
    words = "%s: took %d of %d tensors of %s, %.1f %% of its numbers; the others start at random"
    log.info(words, path, len(taken), len(own), model.name, 100 * share)
    return len(taken)


def auto_anchor(model, dataset, size, *, choice="keep", seed=0):
    """The best possible recall (0..1) of the anchors that `model` has now, on boxes of `dataset` at `size` pixels.

    Where they reach too few boxes ("auto") others take their place, in place and before the loss is built, if those
    reach more; ("keep") a warning names the option. Raises ValueError where the data set holds no box.
    """
    if choice not in ("keep", "auto"):
        raise ValueError(f"anchors must be keep or auto, got {choice}")
    sizes = box_sizes(dataset.ground_truth(), size)
    recall = suitability(sizes, model.anchors.cpu().numpy()).recall
    if recall > ENOUGH:
        log.info("anchors: kept, they can answer for %.1f %% of the boxes at %d pixels", 100 * recall, size)
        return recall
    few = f"anchors: at {size} pixels they can answer for {100 * recall:.1f} % of the boxes, {100 * ENOUGH:g} % are enough"
    if choice == "keep":
        log.warning("%s; --anchors auto fits others to this data", few)
        return recall
    others = fit(sizes, seed=seed)
    better = suitability(sizes, others).recall
    if better <= recall:
        log.warning("%s; kept, as those fitted to this data reach no more (%.1f %%)", few, 100 * better)
        return recall
    model.head.set_anchors(others)
    log.warning("%s; others, fitted to this data, took their place and reach %.1f %%", few, 100 * better)
    return better
