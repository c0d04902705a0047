"""Which states does a layer use, and which of its weights never leave theirs?"""

import numpy as np

from oscillab.recording import tables

from .style import method_style, new_figure, set_headline, set_labels


def draw_states(recordings, layer):
    """A figure of the share of the layer's weights in each state at the end, a bar per method, what never flipped full.

    `recordings`: method -> Recording. The title gives dead and saturated shares and the entropy.
    """
    figure, axes = new_figure(7.6, 3.6)
    panel, notes = axes[0, 0], []
    width = 0.8 / len(recordings)
    for number, (method, recording) in enumerate(recordings.items()):
        style, table = method_style(method), still_and_moved(recording, layer)
        place = table["state"] + (number - (len(recordings) - 1) / 2) * width
        bar = {"width": 0.92 * width, "edgecolor": style.color, "linewidth": 0.8}
        panel.bar(place, 100 * table["still"], color=style.color, label=f"{style.label}, never flipped", **bar)
        panel.bar(place, 100 * table["moved"], bottom=100 * table["still"], color="none", label="flipped", **bar)
        notes.append(f"{style.label}: {state_sentence(recording, layer)}")
    if len(table) <= 16:
        panel.set_xticks(table["state"])
    panel.legend(frameon=False, fontsize=9)
    set_labels(panel, x="integer state", y="weights (%)")
    return set_headline(figure, f"{layer}. {'; '.join(notes)}")


def still_and_moved(recording, layer):
    """The shares of a layer's weights in each state (`state`) that never flipped (`still`), and that did (`moved`)."""
    table, weights = tables.occupancy(recording, layer), tables.weights(recording, layer)
    never = weights.loc[weights["flip_count"] == 0, "integer_state"] - table["state"].min()
    still = np.bincount(never, minlength=len(table)) / len(weights)
    return table[["state"]].assign(still=still, moved=table["share"] - still)


def state_sentence(recording, layer):
    """The layer's dead and saturated shares and its entropy, in words."""
    about = tables.layers(recording).set_index("layer").loc[layer]
    shares = f"dead {100 * about['dead_share']:.1f} %, saturated {100 * about['saturated_share']:.1f} %"
    return f"{shares}, entropy {about['entropy']:.2f} bits"
