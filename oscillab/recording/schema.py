"""Say what a recording's file may hold: the types of its meta, and the axes, types and values of its arrays."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

FORMAT, VERSION = "oscillab recording", 1
KINDS = {  # what an array holds: numpy's letters for its types, the least and the largest value, whether NaN is one
    "count": ("iu", 0, math.inf, False),
    "state": ("iu", -128, 127, False),
    "sign": ("iu", -1, 1, False),
    "step size": ("f", -math.inf, math.inf, False),
    "frequency": ("f", 0, 1, False),
    "share": ("f", 0, 1, True),
    "value": ("f", -math.inf, math.inf, True),
}
ARRAYS = {  # array -> its axes, in the letters of the table in `recording.py`, and what it holds
    "step": ("T", "count"),
    **dict.fromkeys(("layer_flip_count", "layer_oscillation_count"), ("TL", "count")),
    **dict.fromkeys(("gradient_turn_count", "input_gradient_turn_count"), ("TL", "count")),
    **dict.fromkeys(("step_size", "step_size_min", "step_size_max"), ("TL", "step size")),
    **dict.fromkeys(("clip_low", "clip_high"), ("TQ", "value")),
    "range_step": ("R", "count"),
    **dict.fromkeys(("observed_low", "observed_high"), ("RQ", "value")),
    "clipped_share": ("RQ", "share"),
    "step_sizes_step": ("P", "count"),
    "step_sizes": ("PA", "step size"),
    "sample_index": ("S", "count"),
    "latent_weight": ("TS", "value"),
    "sample_step_size": ("TS", "step size"),
    "sample_state": ("TS", "state"),
    "integer_state": ("W", "state"),
    "direction": ("W", "sign"),
    "frequency": ("W", "frequency"),
    **dict.fromkeys(("flip_count", "oscillation_count"), ("W", "count")),
    **dict.fromkeys(("window_first_tick", "window_last_tick"), ("K", "count")),
    **dict.fromkeys(("window_flip_count", "window_oscillation_count"), ("KW", "count")),
    **dict.fromkeys(("position_count_first", "position_count"), ("C", "count")),
    "edge_distance_step": ("E", "count"),
    "edge_distance_count": ("EDL", "count"),
}
ASCENDING = {"step", "range_step", "step_sizes_step", "edge_distance_step"}
ASCENDING |= {"sample_index", "window_first_tick", "window_last_tick"}
Allowed = tuple[str, Callable[[Any], bool]]  # in words, and whether a value is


def whole(low: int, high: int = 2**62) -> Allowed:
    """Return that whole numbers from `low` to `high` are allowed."""
    text = f"a whole number from {low}" + f" to {high}" * (high < 2**62)
    return text, lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high


def list_of(allowed: Allowed, least: int = 0) -> Allowed:
    """Return that lists of so many such values or more are allowed."""
    return f"a list of {allowed[0]}", lambda v: isinstance(v, list) and len(v) >= least and all(map(allowed[1], v))


def maybe(allowed: Allowed) -> Allowed:
    """Return that null is allowed too."""
    return f"{allowed[0]} or null", lambda v: v is None or allowed[1](v)


TEXT: Allowed = "text", lambda v: isinstance(v, str)
SWITCH: Allowed = "true or false", lambda v: isinstance(v, bool)
SHARE: Allowed = "a number from 0", lambda v: isinstance(v, int | float) and v is not True and 0 <= v < math.inf
META = {
    "version": whole(1),
    "step_count": whole(0),
    "tick_count": whole(0),
    "threshold": SHARE,
    "layers": list_of(("layers", bool), 1),
}
META_LATER = {
    "unseen_flip_count": whole(0),
    "unowned_layers": list_of(TEXT),
    "unowned_step_sizes": list_of(TEXT),
    "stopped": maybe(TEXT),
    "every": whole(1),
}
META_LATER |= {"arrays": list_of(TEXT), "unfinished": SWITCH}
LAYER = {
    "name": TEXT,
    "shape": list_of(whole(1), 1),
    "bits": maybe(whole(1, 32)),
    "low": whole(-(2**15), 2**16),
    "high": whole(-(2**15), 2**16),
    "step_count": whole(1),
    "has_range": SWITCH,
}
LAYER_LATER = {"has_gradient": list_of(SWITCH, 2)}


def check_fields(what: str, fields: Any, needed: Mapping[str, Allowed], later: Mapping[str, Allowed]) -> None:
    """Raise ValueError where `fields` is no object, lacks what is needed, or one of its values is not allowed."""
    if not isinstance(fields, dict):
        raise ValueError(f"{what} must be an object of names and values, got {type(fields).__name__}")
    for name, (text, allows) in {**needed, **later}.items():
        if name in needed and name not in fields:
            raise ValueError(f"{what} lacks '{name}'")
        if name in fields and not allows(fields[name]):
            raise ValueError(f"{what}: '{name}' must be {text}, got {str(fields[name])[:60]!r}")


def check_meta(meta: dict[str, Any]) -> None:
    """Raise ValueError, in one line, where something of `meta` is missing or not of its type."""
    check_fields("its meta", meta, META, META_LATER)
    names = []
    for number, layer in enumerate(meta["layers"]):
        check_fields(f"layer {number}", layer, LAYER, LAYER_LATER)
        if layer["low"] >= layer["high"]:
            raise ValueError(f"layer '{layer['name']}' has states from {layer['low']} to {layer['high']}")
        names.append(layer["name"])
    if len(set(names)) < len(names):
        raise ValueError(f"two layers are called '{next(name for name in names if names.count(name) > 1)}'")


def check_arrays(meta: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError, in one line, where an array has another type or shape than `meta` says, or impossible values."""
    layers = meta["layers"]
    known = {"L": len(layers), "W": sum(math.prod(layer["shape"]) for layer in layers)}
    known |= {axis: sum(layer[name] for layer in layers) for axis, name in (("Q", "has_range"), ("A", "step_count"))}
    for name in filter(arrays.__contains__, ARRAYS):
        array, (axes, kind) = arrays[name], ARRAYS[name]
        letters, low, high, may_be_nan = KINDS[kind]
        expected = [known.setdefault(axis, length) for axis, length in zip(axes, array.shape, strict=False)]
        if array.dtype.kind not in letters or array.ndim != len(axes) or list(array.shape) != expected:
            said = f"{'whole' if 'i' in letters else 'floating-point'} numbers of {len(axes)} axes {tuple(expected)}"
            raise ValueError(f"array '{name}' must hold {said}, it holds {array.dtype} {array.shape}")
        bad = (
            ~((array >= low) & (array <= high) | np.isnan(array)) if may_be_nan else ~((array >= low) & (array <= high))
        )
        if bad.any() or not (may_be_nan or np.isfinite(array).all()):
            raise ValueError(
                f"array '{name}' holds impossible values, {array[bad | ~np.isfinite(array)][0]} among them"
            )
        if name in ASCENDING and (np.diff(array.astype(np.int64)) <= 0).any():
            raise ValueError(f"array '{name}' must ascend")
    check_together(meta, arrays, known)


def other_sums(counts: np.ndarray, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return for which layers the counts of the weights are in sum another number than those of all rows."""
    differs: np.ndarray = np.add.reduceat(counts, starts, dtype=np.int64) != rows.sum(0)
    return differs


LAWS: tuple[tuple[tuple[str, ...], Callable[..., Any], str], ...] = (  # arrays, where they contradict each other
    (("flip_count", "layer_flip_count"), other_sums, "do not add up"),
    (("oscillation_count", "layer_oscillation_count"), other_sums, "do not add up"),
    (("flip_count", "window_flip_count"), lambda n, k, _: k.sum(0, dtype=np.int64) != n, "do not add up"),
    (("oscillation_count", "window_oscillation_count"), lambda n, k, _: k.sum(0, dtype=np.int64) != n, "do not add up"),
    (("clip_low", "clip_high"), lambda low, high, _: np.isnan(low) != np.isnan(high), "are not NaN at the same places"),
    (
        ("observed_low", "observed_high"),
        lambda low, high, _: np.isnan(low) != np.isnan(high),
        "are not NaN at the same places",
    ),
    (("observed_low", "observed_high"), lambda low, high, _: low > high, "are the wrong way round"),
    (("step_size_min", "step_size"), lambda low, s, _: low > s + 1e-4 * abs(s), "are the wrong way round"),
    (("step_size", "step_size_max"), lambda s, high, _: s > high + 1e-4 * abs(s), "are the wrong way round"),
    (("clipped_share", "observed_low"), lambda share, low, _: np.isnan(share) & ~np.isnan(low), "do not go together"),
    (("latent_weight",), lambda w, _: np.isnan(w).any(0) != np.isnan(w).all(0), "is NaN in a part of a trajectory"),
    (("sample_index", "sample_state", "integer_state"), lambda at, s, q, _: s[-1] != q[at], "end with other states"),
)


def check_together(meta: dict[str, Any], arrays: Mapping[str, np.ndarray], known: dict[str, int]) -> None:
    """Raise ValueError where arrays contradict each other: places beyond the weights, cells, counts that do not add up."""
    bins = sum(layer["high"] - layer["low"] + 2 for layer in meta["layers"])
    if known.get("C", 0) % (2 * bins):
        raise ValueError(f"the histograms of positions must have an even number of cells in each of {bins} bins")
    for name, most in (("sample_index", known["W"] - 1), ("step", meta["step_count"])):
        if name in arrays and arrays[name].size and int(arrays[name][-1]) > most:
            raise ValueError(f"array '{name}' reaches {arrays[name][-1]}, the most is {most}")
    if known.get("T") == 0:
        raise ValueError("it has no row of time, not even that of the model before the first step")
    starts = np.cumsum([0, *(math.prod(layer["shape"]) for layer in meta["layers"])])[:-1]
    for names, contradict, said in LAWS:
        if set(names) <= arrays.keys() and np.any(contradict(*(arrays[name] for name in names), starts)):
            raise ValueError(f"array{'s' * (len(names) > 1)} {' and '.join(map(repr, names))} {said}")
