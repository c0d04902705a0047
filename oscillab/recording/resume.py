"""How does a recorder go on where another one stopped?"""

from dataclasses import asdict

import torch

STATE_VERSION = 1


def state_of(recorder) -> dict:
    """What a later run needs to go on, in tensors and plain containers, weights by flat index."""
    tracked = recorder.tracker.state_dict()
    return identity(recorder) | {
        "counts": [recorder.step_count, recorder.tick_count, recorder.last_flip_count()],
        "limits": [list(pair) for pair in recorder.limits],
        "histograms": [torch.from_numpy(histogram) for histogram in recorder.first_histograms],
        "tracker": {name: recorder.layers.in_order(values) for name, values in tracked.items()},
        "windows": recorder.windows.state_dict(),
        "rows": recorder.rows.state_dict(),
        "gradient_signs": recorder.gradients.last.cpu().clone(),
    }


def check_state(recorder, state: dict) -> None:
    """Raise ValueError where `state` comes from another version, other layers, settings or trajectories."""
    for what, mine in identity(recorder).items():
        if state.get(what) != mine:
            raise ValueError(f"the state comes from a recorder of other {what}: {differing(state.get(what), mine)}")


def restore(recorder, state: dict) -> None:
    """Nothing; fills a recorder with `state`, made by `state_of`."""
    recorder.limits = [tuple(pair) for pair in state["limits"]]
    recorder.first_histograms = [histogram.cpu().numpy() for histogram in state["histograms"]]
    tracked = {name: recorder.layers.as_in_memory(values) for name, values in state["tracker"].items()}
    recorder.tracker.load_state_dict(tracked)
    recorder.windows.load_state_dict(state["windows"])
    recorder.rows.load_state_dict(state["rows"])
    if "gradient_signs" in state:  # the first version that was used did not look at gradients
        recorder.gradients.last.copy_(state["gradient_signs"])


def identity(recorder) -> dict:
    """What has to be the same in both recorders."""
    return {
        "version": STATE_VERSION,
        "settings": asdict(recorder.settings),
        "layers": {layer.name: list(layer.shape) for layer in recorder.layers.layers},
        "trajectories": dict(enumerate(recorder.sample.index.tolist())),
    }


def differing(theirs, mine) -> str:
    """The first entry that differs between two dicts or values, in words."""
    if not (isinstance(theirs, dict) and isinstance(mine, dict)):
        return f"{theirs} and {mine}"
    key = next(key for key in [*theirs, *mine] if theirs.get(key) != mine.get(key))
    return f"{key} is {theirs.get(key)} there and {mine.get(key)} here"
