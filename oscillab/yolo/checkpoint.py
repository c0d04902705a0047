"""Save and load detectors: official YOLOv5 and YOLOv7 files, oscillab's own (float or quantized), plain state_dicts.

Nothing in a file is run (`pt_file.py`).
"""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oscillab.io import atomic_write, shipped
from oscillab.quant import QuantSpec, integer_state, is_quantized, quant_layers, quantize
from oscillab.quant.fold import corrections, insert_corrections
from oscillab.quant.layers import check_finite

from . import pt_file, zoo
from .graph import Detector, fuse
from .heads import COEFFICIENTS
from .official import class_names, plain, read_official, tensors

logger = logging.getLogger(__name__)

FORMAT, VERSION = "oscillab", 1


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says about its network."""

    path: str
    state: dict[str, Tensor]  # as state_dict() gives it, in its order and precision
    name: str | None = None  # a name of the zoo, where the file tells (or `inspect` finds) it
    classes: int | None = None
    names: list[str] | None = None  # of the classes
    anchors: Tensor | None = None  # (levels, anchors, 2) in pixels
    strides: tuple[int, ...] = (8, 16, 32)
    size: int | None = None  # pixels, of the longer side of the images that it was trained with
    epoch: int | None = None  # -1 in official files whose training is over
    quant: dict | None = None  # the QuantSpec's fields of a quantized network
    corrected: bool = False  # whether QC is in it, not folded
    activations: frozenset[str] = frozenset()  # class names; empty where only tensors were saved
    bn: tuple[float, float] | None = None  # eps and momentum of its BatchNorms, where the file holds one pair
    kinds: frozenset[str] = frozenset()  # dotted names of its modules' classes; empty where only tensors were saved
    notes: tuple[str, ...] = ()  # what of the file was not taken as it is, in words

    @property
    def fused(self) -> bool:
        """Whether its BatchNorms are folded into the convolutions."""
        return not any(key.endswith("running_mean") for key in self.state)


def save(model: Detector, path: Path | str, *, half: bool = False, size: int | None = None, **extra: Any) -> Path:
    """Write the detector to `path`, whole or not at all, and return it.

    `half`: floats in half precision, step sizes and integer states stay the same. `size`: pixels of the images that it was
    trained with (the model's own if None). `extra`: more entries. Raises ValueError where half precision is too coarse.
    """
    spec = getattr(model, "quant_spec", None)
    entries = {
        "format": FORMAT,
        "version": VERSION,
        "name": model.name,
        "classes": model.classes,
        "names": list(model.names),
        "size": model.size if size is None else size,
        "quant": None if spec is None else asdict(spec),
        "corrected": bool(corrections(model)),
        "model": halved(model) if half else model.state_dict(),
    }
    with atomic_write(path) as temporary:
        torch.save(entries | extra, temporary)
    return Path(path)


def load(path: Path | str) -> Detector:
    """Return the detector in a checkpoint, float or quantized, in eval mode and float32.

    `path`: a file, or the name of a detector that comes with oscillab: yolov5n-scenes, yolov5n-seg-scenes, yolov7-tiny-scenes.
    `.names`, `.anchors` (3, 3, 2) in pixels, `.strides` and `.size` come with it; folded BatchNorms give a fused network and
    a warning. Raises ValueError, one line that names the file, for one that does not fit a model of the zoo entirely.
    """
    found = inspect(path)
    if found.name is None:
        raise ValueError(f"{path}: {zoo.misfit(found)}")
    problem = zoo.difference(found, found.name) if found.quant is None else None
    if problem is not None:
        raise ValueError(f"{path}: says that it holds {found.name}, but {problem}")
    for note in found.notes:
        logger.warning("%s: %s", path, note)
    names = found.names
    if names is not None and len(names) != found.classes:
        logger.warning("%s: %d names for %d classes, numbers are used", path, len(names), found.classes)
        names = None
    try:
        model = zoo.build(found.name, found.classes or 80, names=names)
        model.size = found.size
        if found.quant is not None:
            quantize(model, QuantSpec.from_dict(found.quant), None)
            if found.corrected:
                insert_corrections(model)
        elif found.fused:
            logger.warning("%s: its BatchNorms are folded away: good to evaluate and to export, not to train", path)
            model = fuse(model)
        model.load_state_dict(found.state)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split()):.200}") from error
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d) and found.bn is not None:
            layer.eps, layer.momentum = found.bn
    return model.eval()


@torch.no_grad()
def halved(model: nn.Module) -> dict[str, Tensor]:
    """Return a state_dict in half precision; a weight that would cross a bin edge takes the next number on its own side."""
    check_finite(model)
    state = model.state_dict()
    made = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    for name, layer in quant_layers(model).items():
        made |= {key: state[key] for key in state if key.startswith((f"{name}.weight_quant", f"{name}.input_quant"))}
        grid, weight = layer.weight_quantizer, made[f"{name}.weight"]
        states = layer.integer_state()

        def moved(weight: Tensor) -> Tensor:
            return integer_state(weight.to(layer.weight), layer.weight_step_size(), grid.low, grid.high) - states  # noqa: B023

        back = np.nextafter(weight.cpu().numpy(), -moved(weight).sign().mul(np.inf).nan_to_num(0).half().cpu().numpy())
        made[f"{name}.weight"] = weight = torch.where(moved(weight) == 0, weight, torch.from_numpy(back).to(weight))
        if moved(weight).any():
            raise ValueError(f"half precision is too coarse for the integer states of layer {name!r}; save in full")
    for key, tensor in made.items():
        if not torch.equal(tensor.isfinite(), state[key].isfinite()):
            raise ValueError(f"half precision cannot hold the numbers of {key!r}, up to {state[key].abs().max():.3g}")
    return made


def load_matching_weights(model: Detector, path: Path | str) -> int:
    """Take into `model`, in place, every tensor of its name and shape from a float checkpoint; return how many.

    BN statistics and anchors are among them. Raises ValueError for a quantized or fused checkpoint, or where none matches.
    """
    source = load(path)
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
    logger.info(words, path, len(taken), len(own), model.name, 100 * share)
    return len(taken)


def inspect(path: Path | str) -> Checkpoint:
    """Return the `Checkpoint` at `path`, with the `name` of the model that its weights fit where the file tells none."""
    found = read(path)
    fits = (name for name in zoo.MODELS if zoo.difference(found, name) is None)
    return found if found.name is not None else replace(found, name=next(fits, None))


def read(path: Path | str) -> Checkpoint:
    """Return the `Checkpoint` at `path`. Raises ValueError, one line that names the file, where it holds none."""
    if Path(path).suffix == ".onnx":
        raise ValueError(f"{path}: an ONNX file is opened with oscillab.load_onnx(path)")
    if not Path(path).exists() and (with_oscillab := shipped(f"{path}.pt")).is_file():  # a name: "yolov5n-scenes"
        path = with_oscillab
    content = pt_file.read(path)
    try:
        own = isinstance(content, dict) and content.get("format") == FORMAT
        facts = read_own(content) if own else read_official(content)
        return Checkpoint(path=str(path), **facts | read_head(facts))
    except pt_file.DAMAGE as error:
        reason = f"its network is malformed ({type(error).__name__}: {error})"
    except ValueError as error:
        reason = str(error)
    raise ValueError(f"{path}: {' '.join(reason.split()):.300}")


def read_own(content: dict) -> dict[str, Any]:
    """Return the fields of a `Checkpoint` from this project's own format."""
    if content.get("version") != VERSION:
        raise ValueError(f"its format version must be {VERSION}; a newer oscillab may have written it")
    kinds = {"name": str, "classes": int, "epoch": int, "quant": dict, "size": int}
    fields = {key: plain(content.get(key), kind) for key, kind in kinds.items()}
    names, notes = class_names(content.get("names"))
    fields |= {"quant": fields["quant"] or None, "corrected": content.get("corrected") is True}
    return {"state": tensors(content["model"]), "names": names, "notes": notes, **fields}


def read_head(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the anchors, and the number of classes unless the file told it, from the head's tensors."""
    found: dict[str, Any] = {}
    strides = facts.get("strides", Checkpoint.strides)
    coefficients = COEFFICIENTS if any(".proto." in key for key in facts["state"]) else 0
    for key, tensor in facts["state"].items():
        if key.endswith(".anchors") and tensor.ndim == 3 and len(tensor) == len(strides):
            found["anchors"] = tensor.float() * torch.tensor(strides).view(-1, 1, 1)  # (levels, anchors, 2)
        if key.endswith(".m.0.bias") and facts.get("classes") is None:
            found["classes"] = len(tensor) // 3 - 5 - coefficients
    return found
