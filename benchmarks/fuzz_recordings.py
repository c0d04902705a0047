"""Open damaged recordings: each must give the tables of the sound one, or one line; nothing runs, nothing hangs.

    python -m benchmarks.fuzz_recordings --count 500 --seed 0

Each file is a sound one that was damaged in one way, see `WAYS`. What is allowed: every table equals the sound one's (a
number may be NaN where its array was lost and a warning says so), or a ValueError of one line at opening or of the table,
within a second of computing and without much memory. Exits with status 1 where something else happened.
"""

import argparse
import io
import json
import pickle
import random
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from oscillab.quant import QuantSpec, quantize
from oscillab.recording import npz, tables
from oscillab.recording.recorder import record
from oscillab.recording.recording import Recording

SECONDS, MEGABYTES = 1, 100
ODD_META = (None, True, -5, 10**30, 0.5, float("nan"), float("inf"), "", "8", [], {}, [[]], [-1, 2], {"a": None})
NAMES = ("step_count", "tick_count", "threshold", "layers", "stopped", "unowned_layers", "unseen_flip_count", "version",
         "format", "arrays", "unfinished")  # fmt: skip
MAY_BE = {"bits": (None,), "stopped": (None, "", "8"), "low": (-5,), "unowned_layers": ([],), "arrays": ([],)}
MAY_BE |= {"has_range": (True,), "unfinished": (True,), "threshold": (0.5,)}
ODD_TYPES = ("U4", "S3", "c8", "?", "M8[s]", "V8", "f8", "i8")


def sound(path: Path) -> None:
    """Write a recording of a small training with everything that a recording may hold."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 4, 3))
    quantize(net, QuantSpec(bits=3, weight_granularity="per_channel"), [torch.rand(2, 3, 12, 12)]).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    with record(net, optimizer, path=path, ranges_every=5):
        for _ in range(260):
            optimizer.zero_grad()
            (net(torch.rand(2, 3, 8, 8)) - torch.rand(1)).square().mean().backward()
            optimizer.step()


def tables_of(recording: Recording) -> dict[str, object]:
    """Return every table and number of a recording by name, the line of its error where it has none."""
    ways = {
        name: getattr(tables, name) for name in ("layers", "over_time", "ranges", "flip_attribution", "periodicity")
    }
    ways |= {name: getattr(tables, name) for name in ("flip_rate", "oscillating_share")}
    found: dict[str, object] = {"gaps": pd.DataFrame({"gap": recording.gaps}), "repr": repr(recording)}
    for layer in recording.layer_names:
        for name in ("weights", "occupancy", "positions", "edge_distances", "trajectories"):
            ways[f"{name} of {layer}"] = lambda one, name=name, layer=layer: getattr(tables, name)(one, layer)
    for name, way in ways.items():
        try:
            found[name] = way(recording)
        except ValueError as error:
            found[name] = str(error)
    return found


def differs(mine: object, sound: object, *, may_lack: bool) -> bool:
    """Return whether a table is another than the sound one; `may_lack`: NaN or an error of one line may stand for a value."""
    if isinstance(mine, str):
        return not may_lack or "\n" in mine if not isinstance(sound, str) else mine != sound
    if isinstance(sound, str):
        return True
    mine, sound = (pd.DataFrame({"value": [one]}) if isinstance(one, float) else one for one in (mine, sound))
    if mine.shape != sound.shape or list(mine) != list(sound):
        return True
    for name in sound:
        same = (mine[name] == sound[name]) | sound[name].isna() & mine[name].isna()
        if sound[name].dtype.kind == "f":  # a wider type may hold what is computed with another last digit
            same |= np.isclose(mine[name].astype(float), sound[name], rtol=1e-5, atol=1e-5)
        if not (same | (mine[name].isna() & may_lack)).all():
            return True
    return False


class Canary:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def npy_with_header(shape: tuple[int, ...], descr: str, content: bytes = b"") -> bytes:
    """Return an .npy file that says this of its content."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


class Damage:
    """Damages a sound file in one way a method; each returns the bytes of a file."""

    def __init__(self, data: bytes, chance: random.Random, canary: Path):
        self.data, self.chance, self.canary = data, chance, canary

    def fresh(self) -> tuple[dict, dict[str, np.ndarray]]:
        """Return the sound meta and arrays, to be changed."""
        with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            arrays = {name[:-4]: np.load(io.BytesIO(archive.read(name))) for name in names}
            return json.loads(archive.read("meta.json")), arrays

    def written(self, meta: object, arrays: dict[str, object], foreign: dict[str, bytes] | None = None) -> bytes:
        """Return the file of a meta and arrays (or bytes) by name, and other members."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("meta.json", meta if isinstance(meta, bytes) else json.dumps(meta))
            for name, array in arrays.items():
                archive.writestr(f"{name}.npy", array if isinstance(array, bytes) else npz.npy(array))
            for name, content in (foreign or {}).items():
                archive.writestr(name, content)
        return file.getvalue()

    def with_array(self, change, but: str = "-") -> bytes:
        """Return the file with one array changed by `change(array)`, to another or to bytes; none with `but` in its name."""
        meta, arrays = self.fresh()
        name = self.chance.choice([name for name, array in arrays.items() if array.size and but not in name])
        return self.written(meta, arrays | {name: change(arrays[name])})

    def cut(self) -> bytes:
        """Cut the file short."""
        return self.data[: self.chance.randrange(len(self.data))]

    def bytes_flipped(self) -> bytes:
        """Change up to eight bytes, half of the time in the headers at its end."""
        data = bytearray(self.data)
        start = len(data) - 2500 if self.chance.random() < 0.5 else 0
        for _ in range(self.chance.randint(1, 8)):
            data[self.chance.randrange(start, len(data))] ^= self.chance.randint(1, 255)
        return bytes(data)

    def other_shape(self) -> bytes:
        """Give an array one axis more, or none."""
        ways = (lambda a: a[None], lambda a: a.reshape(-1)[0], lambda a: a[..., None], lambda a: np.stack([a, a]))
        return self.with_array(self.chance.choice(ways))

    def other_type(self) -> bytes:
        """Give an array another type; a wider one holds the same values."""
        return self.with_array(lambda array: array.astype(self.chance.choice(ODD_TYPES)))

    def other_length(self) -> bytes:
        """Take rows or columns of an array away, or add some."""

        def change(array):
            axis = self.chance.randrange(array.ndim)
            count, length = self.chance.randint(1, 3), array.shape[axis]
            if self.chance.random() < 0.5:
                return np.take(array, range(max(0, length - count)), axis)
            return np.concatenate([array, np.take(array, range(min(count, length)), axis)], axis)

        return self.with_array(change)

    def odd_values(self) -> bytes:
        """Put a negative, enormous or NaN value where none can be; every number of 8 bits can be a state."""

        def change(array):
            odd = np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).min or np.iinfo(array.dtype).max
            array.reshape(-1)[self.chance.randrange(array.size)] = odd
            return array

        return self.with_array(change, but="state")

    def objects(self) -> bytes:
        """Put a python object in an array's place, which would make a file."""
        evil = pickle.dumps(Canary(self.canary))
        return self.with_array(lambda _: self.chance.choice([evil, npy_with_header((), "|O", evil)]))

    def member_missing(self) -> bytes:
        """Leave one to three arrays out, or the meta."""
        meta, arrays = self.fresh()
        for name in self.chance.sample(sorted(arrays), self.chance.randint(1, 3)):
            del arrays[name]
        return self.written(meta if self.chance.random() < 0.9 else b"", arrays)

    def member_foreign(self) -> bytes:
        """Add members that no recording has."""
        foreign = {"weights.npy": npz.npy(np.arange(9)), "notes.txt": b"hello", "../up.npy": npz.npy(np.arange(3))}
        foreign |= {"readme": b"\x00" * 99, "2/step.npy": npz.npy(np.arange(3)), "é.npy": b"\x93NUMPY"}
        return self.written(*self.fresh(), {name: foreign[name] for name in self.chance.sample(sorted(foreign), 2)})

    def swapped(self) -> bytes:
        """Exchange what two arrays hold, but for those that no law tells apart: ends of a range, turns of gradients."""
        meta, arrays = self.fresh()
        one, other = self.chance.sample(sorted(set(arrays) - {"clip_high"}), 2)
        return self.written(meta, arrays | {one: arrays[other], other: arrays[one]})

    def huge(self) -> bytes:
        """Declare an array of terabytes, in its own header or in that of the archive."""
        if self.chance.random() < 0.5:
            shapes = [(2**40,), (2**31, 2**31), (2**62, 4), (-1, -9), (10**30,), (1,) * 70, (2**33, 0)]
            return self.with_array(lambda _: npy_with_header(self.chance.choice(shapes), "<f4"))
        data, at = bytearray(self.data), 0
        for _ in range(self.chance.randint(1, 10)):
            at = data.index(b"PK\x01\x02", at + 1)
        data[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")
        return bytes(data)

    def bomb(self) -> bytes:
        """Hold zeros that unpack to a quarter of a gigabyte, said or kept secret, or in a method that asks for much memory."""
        file, size = io.BytesIO(), 2**28
        method = self.chance.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
        with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
            archive.writestr("meta.json", json.dumps(self.fresh()[0]))
            with archive.open("frequency.npy", "w") as member:
                member.write(npy_with_header((size,), "|i1"))
                for _ in range(size // 2**20 if method == zipfile.ZIP_DEFLATED else 16):
                    member.write(bytes(2**20))
        data = bytearray(file.getvalue())
        if self.chance.random() < 0.5:  # says that it is small
            for magic, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
                place = data.rindex(magic) + at
                data[place : place + 4] = (4096).to_bytes(4, "little")
        return bytes(data)

    def foreign_meta(self) -> bytes:
        """Put a value of another type or beyond what is possible into the meta, or another text in its place."""
        meta, arrays = self.fresh()
        if self.chance.random() < 0.25:
            texts = [b"null", b"[]", b"{}", b"[" * 10**5, b'{"a":' * 10**5, b"\xff\xfe", b"1" * 10**5, b'{"format": 1}']
            return self.written(self.chance.choice(texts), arrays)
        name = self.chance.choice([*NAMES, *(name for name in meta["layers"][0] if name != "name")])
        place = meta if name in NAMES else self.chance.choice(meta["layers"])
        allowed = [place.get(name), *MAY_BE.get(name, ())]
        place[name] = self.chance.choice([odd for odd in ODD_META if not any(odd == one for one in allowed)])
        return self.written(meta, arrays)

    def old(self) -> bytes:
        """Write it as the first edition did: without what came later, with what came to nothing."""
        meta, arrays = self.fresh()
        for name in ("unseen_flip_count", "unowned_layers", "stopped"):
            del meta[name]
        for layer in meta["layers"]:
            del layer["has_gradient"]
        arrays = {name: array for name, array in arrays.items() if "turn" not in name}
        meta |= {"row_ticks": 1, "arrays": list(arrays)}
        return self.written(meta, arrays, {"1/step.npy": npz.npy(np.arange(3))})


WAYS = [
    name
    for name, way in vars(Damage).items()
    if callable(way) and name not in ("__init__", "fresh", "written", "with_array")
]


def outcome(path: Path, expected: dict[str, object], way: str) -> tuple[str, str | None]:
    """Return what opening a file and all its tables gives: a word for the count, and what was wrong, None if nothing."""
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            recording = Recording.open(path)
            mine = tables_of(recording)
        warned = any(str(path) in str(one.message) for one in said)
        other = [
            one
            for one in mine
            if one not in expected or differs(mine[one], expected[one], may_lack=warned or way == "old")
        ]
        word, wrong = f"read{', with a warning' * warned}", f"other tables: {', '.join(other)}" if other else None
    except ValueError as error:
        text = str(error)
        whole = text.startswith(str(path)) and "\n" not in text and len(text) < 1000
        word, wrong = "refused in one line", None if whole else f"the line is {text[:200]!r}"
    except BaseException as error:
        word, wrong = "escaped", f"{type(error).__name__}: {str(error)[:200]}"
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    seconds = time.process_time() - started
    slow = f"took {seconds:.1f} s" if seconds > SECONDS else f"took {peak:.0f} MB" if peak > MEGABYTES else None
    return word, wrong or slow


def run(count: int, seed: int, folder: Path) -> tuple[Counter, list[str]]:
    """Damage and open `count` files in an empty folder; return how often what happened, and what was wrong."""
    path, chance = folder / "damaged.npz", random.Random(seed)
    sound(folder / "sound.npz")
    expected = tables_of(Recording.open(folder / "sound.npz"))
    damage = Damage((folder / "sound.npz").read_bytes(), chance, folder / "made")
    counts, faults = Counter(), []
    for number in range(count):
        way = WAYS[number % len(WAYS)]
        path.write_bytes(getattr(damage, way)())
        word, wrong = outcome(path, expected, way)
        counts[way, word] += 1
        if (folder / "made").exists():
            wrong = "code ran"
        if wrong:
            faults.append(f"number {number}, {way}: {wrong}")
    return counts, faults


def main() -> None:
    """Damage and open files, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        counts, faults = run(options.count, options.seed, Path(name))
    for (way, word), count in sorted(counts.items()):
        print(f"{way:<16}{word:<24}{count:>6}")
    print(f"{sum(counts.values())} files, {len(faults)} faults", *faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
