"""What every test shares: one torch thread, the folder of facts where it is present, and recordings made by hand.

The recordings are of three layers of the one-weight toy with noise, so that shares and flips are known.
"""

import importlib.util
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch

from oscillab.recording.recording import Recording
from oscillab.recording.schema import FORMAT, VERSION

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)


def pytest_ignore_collect(collection_path, config):
    """Leave out the browser's and the wheel's tests, which have targets of their own, unless a call names their folder."""
    apart = collection_path.name in ("browser", "wheel")
    return True if apart and not any(collection_path.name in str(one) for one in config.args) else None


@pytest.fixture(scope="session")
def root():
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def script():
    """Import a script, given by its path below the repository, as a module."""

    def load(name):
        spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def shared():
    """The folder of recorded outputs and real images beside the project; the test is skipped where it is absent."""
    path = Path(os.environ.get("OSCILLAB_SHARED", ROOT.parent / "shared"))
    if not (path / "oracle" / "README.md").is_file():
        pytest.skip(f"the shared folder of oracles and real images is absent ({path.name} beside the project)")
    return path


LAYERS = {"first": ((4, 3, 2, 2), 8), "middle": ((6, 4, 3, 3), 3), "last": ((5, 6, 1, 1), 3)}
STEPS, SAMPLED, CELLS = 120, 4, 40


def recording(*, speed=1.0, seed=0, names=tuple(LAYERS), sampled=SAMPLED, positions=True):
    """A Recording of `STEPS` steps; weights follow a target with the straight-through rule at a rate of 0.1 * speed."""
    generator = np.random.default_rng(seed)
    about = [(name, *LAYERS[name]) for name in names]
    counts = [int(np.prod(shape)) for _, shape, _ in about]
    owner = np.repeat(np.arange(len(about)), counts)
    low = np.array([-(2 ** (bits - 1)) for _, _, bits in about])[owner]
    target = generator.normal(0, 1, len(owner))
    w, path, step_sizes = target.copy(), [], []
    for _ in range(STEPS + 1):
        path.append(w)
        w = w - 0.1 * speed * (np.clip(np.round(w), low, -low - 1) - target)
        step_sizes.append(1 + 0.01 * generator.normal(size=len(about)))
    latent = np.stack(path)
    states = np.clip(np.round(latent), low, -low - 1).astype(np.int8)
    layers = [described(name, shape, bits) for name, shape, bits in about]
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "momentum": 0.01,
        "threshold": 0.005,
        "every": 1,
        "step_count": STEPS,
        "tick_count": STEPS,
        "layers": layers,
    }
    arrays = over_time(states, owner, np.array(step_sizes, np.float32)) | at_the_end(states)
    arrays |= trajectories(latent, states, owner, sampled) | input_ranges(
        generator, [one["has_range"] for one in layers]
    )
    for name, row in (("position_count_first", 0), ("position_count", -1)):
        parts = [histogram(latent[row, owner == i], one["low"], one["high"]) for i, one in enumerate(layers)]
        arrays[name] = np.concatenate(parts) * positions
    return Recording(meta, arrays)


def described(name, shape, bits):
    """What a recording knows of a layer; `last` has no input quantizer."""
    low = -(2 ** (bits - 1))
    about = {"name": name, "shape": list(shape), "bits": bits, "low": low, "high": -low - 1}
    return about | {"step_count": 1, "has_range": name != "last"}


def over_time(states, owner, step_sizes):
    """Rows over time: flips per layer and step sizes."""
    flipped = np.diff(states, axis=0, prepend=states[:1]) != 0
    per_layer = np.stack([flipped[:, owner == i].sum(1) for i in range(owner.max() + 1)], 1).astype(np.int32)
    return {
        "step": np.arange(len(states)),
        "layer_flip_count": per_layer,
        "layer_oscillation_count": per_layer,
        "step_size": step_sizes,
    }


def at_the_end(states):
    """What is known of every weight."""
    flips = (np.diff(states, axis=0) != 0).sum(0)
    return {
        "integer_state": states[-1],
        "direction": np.sign(np.diff(states.astype(int), axis=0)).sum(0).astype(np.int8),
        "flip_count": flips.astype(np.uint32),
        "oscillation_count": flips.astype(np.uint32),
        "frequency": (flips / len(states)).astype(np.float32),
    }


def trajectories(latent, states, owner, sampled):
    """The course of the first few weights of each layer."""
    index = np.concatenate([np.flatnonzero(owner == i)[:sampled] for i in range(owner.max() + 1)])
    course = latent[:, index].astype(np.float32)
    return {
        "sample_index": index,
        "latent_weight": course,
        "sample_step_size": np.ones_like(course),
        "sample_state": states[:, index],
    }


def input_ranges(generator, ranged):
    """Clipping ranges of -1 to 1, inputs from -2 to about 2, a quarter of them clipped, at every tenth step."""
    seen, count = np.arange(10, STEPS + 1, 10), sum(ranged)
    ones = np.ones((STEPS + 1, count), np.float32)
    high = 2 + 0.1 * generator.normal(size=(len(seen), count))
    low = np.full_like(high, -2)
    return {
        "clip_low": -ones,
        "clip_high": ones,
        "range_step": seen,
        "observed_low": low.astype(np.float32),
        "observed_high": high.astype(np.float32),
        "clipped_share": np.full(high.shape, 0.25, np.float32),
    }


def histogram(position, low, high):
    """Counts over cells of 1/40 bin from low - 1 to high + 1; what lies beyond is in the end cells."""
    cells = (high - low + 2) * CELLS
    at = np.clip(np.floor((position - (low - 1)) * CELLS), 0, cells - 1).astype(int)
    return np.bincount(at, minlength=cells)


@pytest.fixture(scope="session")
def make_recording():
    """`make_recording(speed=1.0, seed=0, names=…, sampled=4, positions=True)`, see `recording`."""
    return recording


@pytest.fixture(scope="session")
def live():
    """A recording of weights that oscillate."""
    return recording()


@pytest.fixture(scope="session")
def average():
    """A recording of the same layers at a hundredth of the speed: hardly any flips."""
    return recording(speed=0.01)


@pytest.fixture
def tiny_network():
    """`tiny_network(bits=3, **spec)`: three quantized convolutions, two with batch norm, in eval mode, the same for every test."""

    from oscillab.quant import QuantSpec, quantize

    def build(bits=3, **spec):
        torch.manual_seed(0)
        blocks = [torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.SiLU()]
        blocks += [torch.nn.Conv2d(8, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 1)]
        model = torch.nn.Sequential(*blocks).eval()
        return quantize(model, QuantSpec(bits=bits, first_last_bits=bits, **spec), [pixel_batch(0)])

    return build


def pixel_batch(seed):
    """Random pixels (8, 3, 10, 10) of the tiny network."""
    return torch.rand(8, 3, 10, 10, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def train_tiny():
    """`train_tiny(model, optimizer, steps)`: steps towards noise that stays the same, which makes weights flip."""

    def squared_error(outputs, targets, image_size):
        error = (outputs - targets).square().mean()
        return error, {"error": error.detach()}

    def train(model, optimizer, steps, *, remedy=None, each=None):
        loss = squared_error if remedy is None else remedy.loss(squared_error)
        model.train()
        for step in range(steps):
            images = pixel_batch(step % 4)
            targets = torch.randn(8, 4, 6, 6, generator=torch.Generator().manual_seed(step % 4))
            optimizer.zero_grad()
            loss(model(images), targets, 10)[0].backward()
            optimizer.step()
            if each:
                each(step)
        return model.eval()

    return train
