"""The commands `models`, `inspect` and `check`: say what there is, what a file or run holds, and what is wrong with data."""

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro


@dataclass(frozen=True)
class Models:
    """List the detectors: parameters, GFLOPs at 640 pixels, the published mAP and its source."""

    json: Path | None = None
    """also write the list to this file"""


def models(options: Models) -> dict[str, Any]:
    """Return the list as text and as rows, for 80 classes."""
    import pandas as pd

    from oscillab.study.text import table_text
    from oscillab.yolo import zoo

    rows = []
    for entry in map(zoo.entry, zoo.MODELS):
        published = entry.published
        row = {"name": entry.name, "task": entry.task, "parameters": entry.parameters, "GFLOPs": round(entry.gflops, 1)}
        row |= {"box mAP %": published.box_map, "mask mAP %": published.mask_map, "at pixels": published.size}
        rows.append(row | {"source": published.source})
    return {"text": table_text(pd.DataFrame(rows)), "models": rows}


@dataclass(frozen=True)
class Inspect:
    """Say what a file or a run's folder is, without running anything in it."""

    file: Annotated[Path, tyro.conf.Positional]
    """a checkpoint, official or oscillab's, an .onnx file that `export` wrote, a recording (.npz), or the folder of a run"""
    size: int | None = None
    """pixels, for an .onnx file's costs; None: its own size where it is fixed, else 640"""
    json: Path | None = None
    """also write what was found to this file"""


SHOWN = ("bits", "first_last_bits", "weight_granularity", "activation")  # of how a network is quantized


def inspect(options: Inspect) -> dict[str, Any]:
    """Return what a file holds, whichever of the kinds it is; of a folder, what each of its files holds, in short."""
    from oscillab.cli.export import inspect_onnx

    path = options.file
    if path.is_dir():
        return inspect_folder(path)
    if path.suffix == ".onnx":
        return inspect_onnx(path, options.size)
    return inspect_recording(path) if path.suffix == ".npz" else inspect_checkpoint(path)


def inspect_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds, also where it is none of the zoo's."""
    from oscillab.quant import QuantSpec
    from oscillab.yolo import checkpoint, zoo

    found = checkpoint.inspect(path)
    others = ("running_mean", "running_var", "anchors", "anchor_grid")
    trained = {name: value for name, value in found.state.items() if not name.endswith(others)}
    levels = () if found.anchors is None else found.anchors
    quant = asdict(QuantSpec.from_dict(found.quant)) if found.quant else {}
    return {
        "file": path.name,
        "model": found.name or f"none of the zoo's: it {zoo.misfit(found)}",
        "classes": found.classes,
        "names": ", ".join(found.names or []),
        "image size": found.size,
        "strides": ", ".join(str(int(stride)) for stride in found.strides) if found.name else "",
        "anchors": "; ".join(" ".join(f"{side:g}" for side in level.flatten()) for level in levels),
        "parameters": sum(value.numel() for value in trained.values() if value.is_floating_point()),
        "epoch": found.epoch,
        "notes": "; ".join(found.notes),
        "quantized": found.quant is not None,
        **{name.replace("_", " "): value for name, value in quant.items() if name in SHOWN},
    }


def inspect_recording(path: Path) -> dict[str, Any]:
    """Return how much a recording holds, and how often its weights flipped."""
    from oscillab.recording.recording import Recording
    from oscillab.recording.tables import flip_rate, oscillating_share

    found = Recording.open(path)
    return {
        "file": path.name,
        "kind": "a recording",
        "layers": len(found.layer_names),
        "weights": int(found.weight_count),
        "steps": int(found.steps[-1]) if len(found.steps) else 0,
        "flips per weight and step": float(flip_rate(found)),
        "oscillating share": float(oscillating_share(found)),
    }


def inspect_folder(folder: Path) -> dict[str, Any]:
    """Return what each checkpoint and recording of a run's folder is, in a line each."""
    found: dict[str, Any] = {"folder": str(folder)}
    for path in sorted(path for path in folder.glob("*.pt") if path.name != "last.pt"):
        held = inspect_checkpoint(path)
        found[path.name] = f"{held['model']}, {held['classes']} classes, {held.get('bits', 32)} bit"
    for path in sorted(folder.glob("*.npz")):
        held = inspect_recording(path)
        share = f"{held['flips per weight and step']:.3%}"
        found[path.name] = f"{held['steps']} steps, {share} of the weights flip in a step"
    if len(found) == 1:
        raise ValueError(f"{folder} holds no checkpoint and no recording: give a file, or the folder of a run")
    return found


@dataclass(frozen=True)
class Check:
    """Say what is wrong with a data set in COCO's layout, and what it holds; the exit status is 1 where something is."""

    folder: Annotated[Path, tyro.conf.Positional]
    """the folder that --data would name"""
    images: bool = True
    """also read every image"""
    json: Path | None = None
    """also write what was found to this file"""


def check(options: Check) -> dict[str, Any]:
    """Return what each split of a folder holds and what is wrong with it, as text and as a mapping."""
    from oscillab.data.dataset import splits_of
    from oscillab.study.text import lines

    found = {name: check_split(options.folder, name, read=options.images) for name in splits_of(options.folder)}
    texts = []
    for split, values in found.items():
        shown = lines({name: value for name, value in values.items() if name != "faults"})
        texts.append("\n".join([f"{split}:", shown, *(f"error: {fault}" for fault in values.get("faults", []))]))
    names = {split: values.get("classes") for split, values in found.items()}
    if len(set(names.values())) > 1:
        texts.append(f"error: the splits have other classes: {names}")
    wrong = len(set(names.values())) > 1 or any(values.get("faults") for values in found.values())
    return {"text": "\n\n".join(texts), "status": int(wrong), **found}


def check_split(root: Path, split: str, *, read: bool) -> dict[str, Any]:
    """Return the counts of a split and the faults that opening, or reading its images, finds."""
    from oscillab.data.annotations import SHOWN, faults, mended, parse
    from oscillab.data.dataset import CocoFolder

    try:
        content = parse(root / "annotations" / f"instances_{split}.json")
        if wrong := faults(content):
            return {"faults": wrong[:SHOWN] + [f"{len(wrong) - SHOWN} more"] * (len(wrong) > SHOWN)}
        dataset = CocoFolder(root, split)
    except ValueError as error:
        return {"faults": [str(error)]}
    boxes = Counter(entry["category_id"] for entry in content["annotations"])
    names = {category["id"]: category["name"] for category in content["categories"]}
    sides = [(image["width"], image["height"]) for image in content["images"]]
    used = {entry["image_id"] for entry in content["annotations"]}
    described = {
        "images": len(dataset),
        "classes": ", ".join(dataset.names),
        "boxes": ", ".join(f"{names[number]} {boxes[number]}" for number in sorted(names)),
        "mended": "; ".join(mended(content)[1]) or "nothing",
        "crowds": sum(bool(entry.get("iscrowd")) for entry in content["annotations"]),
        "without masks": sum(not entry.get("segmentation") for entry in content["annotations"]),
        "images without objects": sum(image["id"] not in used for image in content["images"]),
        "sizes": f"{min(sides)[0]}x{min(sides)[1]} to {max(sides)[0]}x{max(sides)[1]} pixels",
    }
    return described | (check_images(dataset) if read else {})


def check_images(dataset: Any) -> dict[str, Any]:
    """Return which images are the same as another, and which cannot be read or have another size than annotated."""
    from tqdm.auto import tqdm

    seen: dict[str, Path] = {}
    twice, wrong = [], []
    paths = tqdm(dataset.image_paths(), desc=f"check {dataset.split}", disable=None)  # a bar on a terminal alone
    for index, path in enumerate(paths):
        try:
            dataset.sample(index)
        except (ValueError, OSError) as error:
            wrong.append(str(error))
        first = seen.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
        if first != path:
            twice.append(f"{path.name} = {first.name}")
    return {"same images": ", ".join(twice[:10]) or "none", "faults": wrong[:10]}
