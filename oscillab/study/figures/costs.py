"""What does a file save, layer by layer, and what is left in floats?

Both figures take the rows of `oscillab.export.cost`: sequences with the fields of `LayerCost` and of `Kind`.
"""

import numpy as np

from oscillab.plot.style import INK, METHODS, QUIET, new_figure, set_headline, set_labels

FLOAT, WHOLE, ENDS = METHODS["fp32"].color, METHODS["lsq"].color, METHODS["ema"].color
KILO, MEGA = 1024, 1e6


def draw_bytes(layers, *, file_bytes=None, float_file_bytes=None):
    """A figure of the bytes of each convolution, in the network's order: in single precision, and in the file.

    `layers`: rows with `bits`, `bytes`, `float_bytes`. With the sizes of both files in bytes, the title compares them.
    """
    layers = list(layers)
    figure, axes = new_figure(8.4, 3.6)
    panel, places = axes[0, 0], np.arange(len(layers))
    panel.bar(places, [layer.float_bytes / KILO for layer in layers], 0.9, color="#d9d9d9", label="FP32")
    bits = [layer.bits for layer in layers]
    for width in sorted(set(bits)):
        chosen = [i for i in places if bits[i] == width]
        color = WHOLE if width == min(bits) else ENDS
        panel.bar(
            chosen, [layers[i].bytes / KILO for i in chosen], 0.9, color=color, label=f"{width} bits, in the file"
        )
    panel.set_yscale("log")
    panel.set_xticks(places[::5], places[::5])
    set_labels(panel, x="convolution, from the image to the boxes", y="KB, logarithmic")
    panel.legend(frameon=False, ncols=3, fontsize=9, loc="upper left")
    panel.set_ylim(top=panel.get_ylim()[1] * 4)  # room for the legend
    saved = sum(layer.bytes for layer in layers) / sum(layer.float_bytes for layer in layers)
    text = f"Weights take {saved:.1%} of their FP32 bytes"
    if file_bytes and float_file_bytes:
        text += f", the whole file {file_bytes / float_file_bytes:.1%}"
    return set_headline(figure, text)


def draw_kinds(kinds):
    """A figure of how many numbers each kind of operation gives for one image, the convolutions apart from the rest.

    `kinds`: rows with `kind`, `operations`, `numbers`.
    """
    kinds = sorted(kinds, key=lambda kind: kind.numbers)
    figure, axes = new_figure(7.6, 0.8 + 0.42 * len(kinds))
    panel = axes[0, 0]
    colors = [WHOLE if kind.kind == "convolution" else FLOAT for kind in kinds]
    panel.barh([kind.kind for kind in kinds], [kind.numbers / MEGA for kind in kinds], color=colors)
    for place, kind in enumerate(kinds):
        text = f" {kind.operations} nodes"
        panel.text(kind.numbers / MEGA, place, text, va="center", color=INK, fontsize=8.5)
    panel.grid(axis="x", color="#e6e6e6", linewidth=0.6)
    panel.grid(axis="y", visible=False)
    panel.spines["left"].set_color(QUIET)
    panel.margins(x=0.16)
    set_labels(panel, x="million numbers given, for one image", y="")
    return set_headline(figure, "Convolutions work on integers (blue), the rest in floats")
