"""Does any annotation file hang, crash or mislead? `python -m benchmarks.fuzz_annotations --count 2000 --seed 0`.

Each file is a sound one with one to three values replaced, removed, doubled or moved. Either opening refuses it in one line
within a second, or every mask and the mAP of its own boxes are pycocotools'.
"""

import io
import json
import random
import tempfile
import time
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from oscillab.data.dataset import CocoFolder
from oscillab.data.evaluate import average_precision
from oscillab.data.images import decode_mask, encode_runs
from oscillab.data.scenes import Scenes

ODD = [
    None,
    True,
    -1,
    0,
    1,
    2,
    10**20,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "1",
    "é\0",
    [],
    {},
    [[]],
    [1, 2, 3],
]
ODD += [
    [[0, 0, 9, 0, 9, 9]],
    {"size": [9, 9], "counts": [81]},
    {"size": [64, 64], "counts": "o"},
    [0, 0, 5, 5],
    "a" * 10**5,
]


@dataclass(frozen=True)
class Options:
    """How much is tried."""

    count: int = 2000
    seed: int = 0


def place(value, chance):
    """Return the path to a value inside, each level chosen with the same chance, so that few are in the longest lists."""
    path = ()
    while isinstance(value, dict | list) and value and (not path or chance.random() < 0.8):
        key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
        path, value = (*path, key), value[key]
    return path


def mutate(content, chance):
    """Change one value of the content, in place."""
    path = place(content, chance)
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    way, key = chance.choice(("replace", "replace", "remove", "double", "swap")), path[-1]
    if way == "remove":
        del parent[key]
    elif way == "double" and isinstance(parent, list):
        parent.append(parent[key])
    elif way == "swap" and isinstance(parent, list):
        other = chance.randrange(len(parent))
        parent[key], parent[other] = parent[other], parent[key]
    else:
        parent[key] = chance.choice(ODD)


def differs(dataset):
    """Return what is not pycocotools' of a data set that was opened; None where nothing is."""
    truth = dataset.ground_truth()
    images = {image["id"]: image for image in truth["images"]}
    for entry in truth["annotations"]:
        image, given = images[entry["image_id"]], entry.get("segmentation")
        if given:
            shape = image["height"], image["width"]
            runs = given
            if isinstance(given, list):
                runs = masks.merge(masks.frPyObjects(given, *shape))
            elif isinstance(given["counts"], list):
                runs = masks.frPyObjects(given, *shape)
            if not np.array_equal(masks.decode(runs), mask := decode_mask(given, *shape)):
                return f"mask of {entry['id']}: {mask.sum()} pixels"
    results = [{k: e[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.5} for e in truth["annotations"]]
    ids = [image["id"] for image in truth["images"]]
    ours = average_precision(truth, results, ids)
    with redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = json.loads(json.dumps(truth | {"annotations": renumbered(truth["annotations"])}))
        index.createIndex()
        judge = COCOeval(index, index.loadRes(json.loads(json.dumps(results))) if results else COCO(), "bbox")
        judge.evaluate(), judge.accumulate()
    theirs = judge.eval["precision"][..., 0, -1].mean(1)
    return None if np.allclose(ours, np.where(theirs < 0, np.nan, theirs), equal_nan=True) else "mAP"


def renumbered(entries):
    """Return the annotations with ids from 1: to pycocotools a match with number 0 is none."""
    return [entry | {"id": number} for number, entry in enumerate(entries, start=1)]


def main(options):
    """Print how many files were refused and opened, and every one that was neither right nor refused in a line."""
    found, bad = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        path = CocoFolder.write(Scenes(4, split="val", size=64), folder, "val2017")
        sound = json.loads(path.read_text())
        sound["annotations"][0]["segmentation"] = [[8, 8, 28, 8, 28, 28, 8, 28]]
        sound["annotations"].append(sound["annotations"][1] | {"id": 999, "iscrowd": 1})
        sound["annotations"][-1]["segmentation"] = encode_runs(np.eye(64, dtype=np.uint8))
        for number in range(options.count):
            chance = random.Random(f"{options.seed}/{number}")
            content = json.loads(json.dumps(sound))
            for _ in range(chance.choice((1, 1, 2, 3))):
                mutate(content, chance)
            Path(path).write_text(json.dumps(content))
            begin = time.perf_counter()
            try:
                dataset = CocoFolder(folder, "val2017")
                for index in range(len(dataset)):
                    dataset.sample(index)
                wrong = differs(dataset)
                kind = "opened" if wrong is None else "wrong"
            except ValueError as error:
                wrong, kind = str(error), "refused" if "\n" not in str(error) else "several lines"
            except Exception as error:
                wrong, kind = f"{type(error).__name__}: {error}", "crashed"
            kind = "slow" if time.perf_counter() - begin > 1 and kind == "refused" else kind
            found[kind] += 1
            if kind not in ("opened", "refused"):
                bad.append(f"{number}: {kind}: {wrong:.200}")
    print("\n".join([*bad[:20], ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))]))
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options)))
