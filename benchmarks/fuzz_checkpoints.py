"""Open damaged checkpoints and ONNX files: each must be refused in one line, with nothing run and no file made.

    python -m benchmarks.fuzz_checkpoints --count 1000 --onnx 500 --seed 0

Whole files are damaged at random: bytes of the pickle, names in it, entries of the archive, cuts, swapped blocks, nodes and
tensors of a graph. Each is opened as a user would; what is allowed is a network, or one line within ten seconds. Exits with
status 1 where something else happened.
"""

import argparse
import io
import logging
import os
import random
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import torch

import oscillab
from oscillab.export.reader import load_onnx
from oscillab.export.write import export_onnx
from oscillab.yolo import checkpoint

NAMES = (b"os\nsystem\n", b"builtins\neval\n", b"builtins\nopen\n", b"posix\nsystem\n", b"importlib\nimport_module\n")
SECONDS = 10


def seeds(folder):
    """Return whole files to damage: a float one, a quantized one, a state_dict, and an exported one."""
    torch.manual_seed(0)
    model = oscillab.build("yolov5n", 2)
    plain = oscillab.save(model, folder / "float.pt", half=True)
    torch.save(model.state_dict(), folder / "state.pt")
    quantized = oscillab.quantize(oscillab.build("yolov5n", 2).eval(), oscillab.QuantSpec(), [torch.rand(1, 3, 64, 64)])
    oscillab.save(quantized, folder / "quantized.pt")
    export_onnx(quantized, folder / "model.onnx")
    files = [path.read_bytes() for path in (plain, folder / "state.pt", folder / "quantized.pt")]
    return files, (folder / "model.onnx").read_bytes()


def damaged_bytes(data, chance):
    """Return bytes after up to eight changes: a byte, a cut, a block that is doubled, zeroed or moved."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        if not data:
            break
        at, length = chance.randrange(len(data)), chance.randint(1, 64)
        kind = chance.randrange(6)
        if kind < 2:
            data[at] = chance.randrange(256)
        elif kind == 2:
            data[at : at + length] = bytes(length)
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            del data[at : at + length]
        else:
            data = data[: max(at, 1)] if chance.random() < 0.1 else data
    return bytes(data)


def damaged_pickle(data, chance, canary):
    """Return an archive whose pickle is damaged, or names a foreign object that would make the file `canary`."""
    source, made = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(made, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = damaged_bytes(content, chance) if chance.random() < 0.7 else hostile(content, chance, canary)
            elif chance.random() < 0.002:
                content = damaged_bytes(content or b"0", chance)
            target.writestr(entry.filename, content)
    return made.getvalue()


def hostile(program, chance, canary):
    """Return a pickle with a call of a foreign function put in after its first instruction."""
    text = f"touch {canary}".encode()
    call = b"c" + chance.choice(NAMES) + b"X" + len(text).to_bytes(4, "little") + text + b"\x85R"
    return program[:2] + call + chance.choice((b"", b"0")) + program[2:]


def outcome(read, path):
    """Return what opening a file gives: a word for the count, and what was wrong, None if nothing."""
    started = time.perf_counter()
    try:
        read(path)
        word, wrong = "read", None
    except ValueError as error:
        text = str(error)
        whole = text.startswith(str(path)) and "\n" not in text and len(text) < 1000
        word, wrong = "refused in one line", None if whole else f"the line is {text[:200]!r}"
    except BaseException as error:
        word, wrong = "escaped", f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - started
    return word, wrong or (f"took {seconds:.0f} s" if seconds > SECONDS else None)


def main():
    """Damage and open files, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="of checkpoints")
    parser.add_argument("--onnx", type=int, default=500, help="of ONNX files")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    chance, counts, faults = random.Random(options.seed), Counter(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, onnx = seeds(folder)
        for path in (*folder.glob("*.pt"), *folder.glob("*.onnx")):  # torch imports much at its first use
            (load_onnx if path.suffix == ".onnx" else checkpoint.load)(path)
        inside, modules = folder / "inside", set(sys.modules)
        inside.mkdir()
        canary = inside / "made"
        os.chdir(inside)
        for number in range(options.count + options.onnx):
            is_onnx = number >= options.count
            path = folder / ("damaged.onnx" if is_onnx else "damaged.pt")
            data = onnx if is_onnx else chance.choice(files)
            plain = is_onnx or chance.random() < 0.3
            path.write_bytes(damaged_bytes(data, chance) if plain else damaged_pickle(data, chance, canary))
            word, wrong = outcome(load_onnx if is_onnx else checkpoint.load, path)
            counts["ONNX" if is_onnx else "checkpoint", word] += 1
            if list(inside.iterdir()):
                wrong = "a file appeared"
            if wrong:
                faults.append(f"number {number}: {wrong}")
        new = set(sys.modules) - modules
        os.chdir("/")
    for (kind, word), count in sorted(counts.items()):
        print(f"{kind:<12}{word:<22}{count:>6}")
    print(f"modules imported meanwhile: {', '.join(sorted(new)) or 'none'}", *faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
