"""Draw every figure of a study's results by its name."""

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from oscillab.extras import nearest

from .gains import draw_claims, draw_gains, draw_share_of_fp32
from .layers import draw_bytes, draw_factors, draw_kinds, draw_layer_errors
from .map_by_method import draw_before_after, draw_map_by_method, draw_map_vs_oscillation, draw_remedies

FIGURES: dict[str, Callable[..., Figure]] = {
    "mAP by method": draw_map_by_method,
    "remedies": draw_remedies,
    "gains": draw_gains,
    "claims": draw_claims,
    "share of FP32": draw_share_of_fp32,
    "mAP and oscillation": draw_map_vs_oscillation,
    "before and after": draw_before_after,
    "layer errors": draw_layer_errors,
    "corrections": draw_factors,
    "bytes": draw_bytes,
    "operations": draw_kinds,
}


def draw(what: Any, figure: str, *arguments: Any, **options: Any) -> Figure:
    """Return a figure of results by its name; nothing is shown and no global state is touched.

    `what`: the rows of a study's `table.csv` where nothing else is named; [what may be left out] stands in brackets.

    | figure | arguments | what is drawn |
    | --- | --- | --- |
    | mAP by method | | mAP of every method, a panel per network and bit width |
    | remedies | [score="map"] | a score by way of training, and what QC adds to it |
    | gains | | paired differences of one network at one bit width, by family |
    | claims | [pairs, most] | paired differences of pairs (method, reference), with their p |
    | share of FP32 | | what each method keeps, ours and the paper's; `what`: `oscillab.tables.compare_with_paper` |
    | mAP and oscillation | | mAP over the share of oscillating weights |
    | before and after | live, average | flips of two recordings and mAP; `what`: rows of one network and width |
    | layer errors | | error of each layer; `what`: method -> `oscillab.tables.layer_errors` |
    | corrections | shifts | what QC learned; `what`: the scales, arrays (channels,) |
    | bytes, operations | [file_bytes, float_file_bytes] | what an exported file holds; `what`: layers, kinds of its cost |

    Raises ValueError for an unknown figure and where the table lacks what the figure shows.
    """
    if figure not in FIGURES:
        raise ValueError(f"there is no figure {figure!r}; {nearest(figure, FIGURES)}")
    return FIGURES[figure](what, *arguments, **options)
