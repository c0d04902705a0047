"""Draw every figure of recordings, of the toys and of recorded detections by its name."""

from collections.abc import Callable, Mapping
from typing import Any

from oscillab.extras import nearest
from oscillab.recording.recording import Recording

from .crowding import draw_crowding
from .images import draw_detections
from .layer import draw_autocorrelation, draw_boundary_distance, draw_layer_map, draw_states, draw_trajectories
from .layer_view import draw_layer_view
from .network import draw_flips, draw_layers, draw_ranges, draw_step_sizes
from .style import InlineFigure
from .toys import draw_frequencies, draw_one_weight, draw_three_weights

FIGURES: dict[str, Callable[..., InlineFigure]] = {
    "flips": draw_flips,
    "layers": draw_layers,
    "latent weights": draw_boundary_distance,
    "crowding": draw_crowding,
    "trajectories": draw_trajectories,
    "states": draw_states,
    "step size": draw_step_sizes,
    "inputs": draw_ranges,
    "rhythm": draw_autocorrelation,
    "layer map": draw_layer_map,
    "layer view": draw_layer_view,
    "one weight": draw_one_weight,
    "three weights": draw_three_weights,
    "frequencies": draw_frequencies,
    "detections": draw_detections,
}
ONE_RECORDING = ("latent weights", "crowding", "inputs", "rhythm", "layer map")


def draw(what: Any, figure: str, *arguments: Any, **options: Any) -> InlineFigure:
    """Return a figure of recordings by its name; nothing is shown and no global state is touched.

    `what`: a Recording, or method -> Recording ("lsq" of the live network, "ema" of its average); `layer` is a name of
    `recording.layer_names`, and [what may be left out] stands in brackets.

    | figure | arguments | what is drawn |
    | --- | --- | --- |
    | flips | | the share of weights that flip in a step, over time |
    | layers | | the share of oscillating weights of each layer |
    | latent weights | [layer] | where latent weights lie between their bin edges, of the first recording |
    | crowding | [layer] | how near to bin edges latent weights lie as training goes on, of the first recording |
    | trajectories | layer, [last=150, count=3] | the last steps of the weights that flip most |
    | states | layer | how many weights are in each state, those that never flipped apart |
    | step size | layer, [last=None] | the weight step size over time |
    | inputs | layer | what comes in, what the quantizer lets pass, of the first recording |
    | rhythm | layer, [last=250, count=3, lag_count=60] | the autocorrelation of states, of the first recording |
    | layer map | layer | how often each weight flips, of the first recording |
    | layer view | layer, [weight=None, step=None] | five panels of one layer; `what`: name -> (method, Recording) |
    | one weight, three weights | [last] | `what`: what `oscillab.toy` returned |
    | frequencies | expected, measured | `what`: targets (n,); `measured`: learning rate -> frequencies (n,) |
    | detections | number, image, [methods, chosen] | `what`: RecordedDetections; `image`: uint8 (H, W, 3) |

    Raises ValueError for an unknown figure or layer, and where the recording lacks what the figure shows.
    """
    if figure not in FIGURES:
        raise ValueError(f"there is no figure {figure!r}; {nearest(figure, FIGURES)}")
    if isinstance(what, Mapping) and figure in ONE_RECORDING:
        what = next(iter(what.values()))
    elif isinstance(what, Recording) and figure not in ONE_RECORDING:
        what = {"lsq": what}
    if figure == "layer view":
        what = {name: (name, run) if isinstance(run, Recording) else run for name, run in what.items()}
    return FIGURES[figure](what, *arguments, **options)
