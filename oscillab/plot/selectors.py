"""Pick a layer or a weight by clicking it, with Jupyter's own widgets alone.

A selector is a map of buttons, each in the colour of its value, for the mouse, the keyboard and a screen reader. Something
is always chosen where there is something to choose: what flips most, until a click.
"""

from collections.abc import Mapping
from typing import Any

import ipywidgets
import matplotlib
import numpy as np
import traitlets
from matplotlib.colors import to_hex, to_rgb

from oscillab.methods import METHODS
from oscillab.recording.recording import Recording
from oscillab.recording.tables import LOW_BITS, chosen_layers

from .layer import flips_in_words
from .layer_view import flip_rates_at, sampled_weights
from .style import MAP

SHADES = [to_hex(matplotlib.colormaps[MAP](place)) for place in np.linspace(0, 1, 8)]  # each a style that buttons share


class ButtonMap(ipywidgets.VBox):
    """Groups of buttons, one of which is chosen: `value` is its key, or None. `what` says what the colours mean.

    `note`: what else is to be said of the buttons; it stands beside the scale, or in its place where there is no button.
    """

    value: Any = traitlets.Unicode(None, allow_none=True)

    def __init__(self, what: str):
        self.what, self.note = what, ""
        self.buttons: dict[str, ipywidgets.Button] = {}
        self.groups: dict[str, tuple[str, ...]] = {}
        self.styles = [ipywidgets.ButtonStyle(button_color=color, text_color=readable_on(color)) for color in SHADES]
        size = {"width": "auto", "height": "30px", "padding": "0 6px", "margin": "1px"}
        self.plain = ipywidgets.Layout(**size, border="2px solid transparent")
        self.chosen = ipywidgets.Layout(**size, border=f"2px solid {METHODS['ema+qc'].color}")
        self.title_look = {"layout": ipywidgets.Layout(height="26px"), "style": ipywidgets.Label().style}
        self.column_layout = ipywidgets.Layout(margin="0 4px 4px 0")
        self.legend = ipywidgets.HTML()
        self.parts = ipywidgets.Box(layout={"flex_flow": "row wrap", "align_items": "flex-start"})
        super().__init__([self.legend, self.parts])

    def lay_out(self, groups: Mapping[str, Mapping[str, str]]) -> None:
        """Show the buttons of `groups` (title -> key -> label); nothing is chosen where the chosen key is gone."""
        shown = {title: tuple(labels) for title, labels in groups.items()}
        if not shown:
            self.legend.value = self.note
        if shown == self.groups:
            return
        self.groups, self.buttons, columns = shown, {}, []
        for column in self.parts.children:  # out of the page and out of the notebook's stored state
            for one in (*column.children, column):
                one.close()
        for title, labels in groups.items():
            column = [ipywidgets.Label(title, **self.title_look)]
            for key, text in labels.items():
                button = ipywidgets.Button(description=text, layout=self.plain, style=self.styles[0])
                button.on_click(lambda _, key=key: self.choose(key))
                self.buttons[key] = button
                column.append(button)
            columns.append(ipywidgets.VBox(column, layout=self.column_layout))
        self.parts.children = columns
        self.value = self.value if self.value in self.buttons else None
        self._mark()

    def choose(self, key: str) -> None:
        """Choose a button, as a click does; raises ValueError for a key that the map has not."""
        if key not in self.buttons:
            raise ValueError(f"the map has no '{key}'; it has {', '.join(self.buttons) or 'nothing'}")
        self.value = key

    @traitlets.observe("value")
    def _mark(self, change: Any = None) -> None:
        for key, button in self.buttons.items():
            button.layout = self.chosen if key == self.value else self.plain

    def paint(self, rates: Mapping[str, float], *, top: float | None = None) -> None:
        """Colour the buttons by `rates` (key -> share), from 0 to `top`, else to the largest."""
        top = top or max(rates.values()) or 1e-12
        for key, button in self.buttons.items():
            button.style = self.styles[int(min(rates[key] / top, 1) * (len(SHADES) - 1) + 0.5)]
            button.tooltip = f"{key}: {100 * rates[key]:.2g} % {self.what}"
        blocks = "".join(f'<span style="background:{color}">&emsp;</span>' for color in SHADES)
        self.legend.value = f"0 {blocks} {100 * top:.2g} % {self.what}. {self.note}"


def readable_on(color: str) -> str:
    """Return black or white, whichever is read more easily on the colour.

    >>> readable_on("#ffea46"), readable_on("#00224e")
    ('black', 'white')
    """
    return "black" if np.dot((0.3, 0.59, 0.11), to_rgb(color)) > 0.45 else "white"


def stages(names: list[str]) -> dict[str, dict[str, str]]:
    """Return the layers grouped by the module of the network that they belong to: title -> name -> label.

    >>> stages(["model.0.conv", "model.2.cv1.conv", "model.2.m.0.cv1.conv", "head"])
    {'model.0': {'model.0.conv': 'conv'}, 'model.2': {'model.2.cv1.conv': 'cv1', 'model.2.m.0.cv1.conv': 'm.0.cv1'},
     'head': {'head': 'head'}}
    """
    groups: dict[str, dict[str, str]] = {}
    for name in names:
        title, _, rest = name.partition(".")
        if rest[:1].isdigit():
            number, _, rest = rest.partition(".")
            title = f"{title}.{number}"
        groups.setdefault(title, {})[name] = rest.removesuffix(".conv") or name
    return groups


class LayerSelector(ButtonMap):
    """The layers of a recording, coloured by the share of their weights that flips in a step; `value`: a layer's name."""

    def __init__(self) -> None:
        super().__init__("of a layer's weights flip in a step")

    def fill(self, recording: Recording, step: int) -> None:
        """Show the recording's layers as they flip in the steps before `step`."""
        rates = flip_rates_at(recording, step)
        self.lay_out(stages(recording.layer_names))
        low = chosen_layers(recording, LOW_BITS) or recording.layer_names
        top = max(rates[name] for name in low)
        self.note = "8-bit layers flip more: they are off the scale." if max(rates.values()) > top else ""
        self.paint(rates, top=top)
        if self.value is None:
            self.value = max(low, key=lambda name: rates[name])


class WeightSelector(ButtonMap):
    """The sampled weights of a layer, coloured by how often they flip; `value`: a weight's flat index, as text."""

    def __init__(self) -> None:
        super().__init__("of the steps the weight flips in")

    def fill(self, recording: Recording, layer: str) -> None:
        """Show the layer's sampled weights, or a sentence where none has a recorded trajectory."""
        try:
            weights = sampled_weights(recording, layer)
        except ValueError:
            self.note = f"No weight of {layer} can be picked: none has a recorded trajectory."
            self.lay_out({})
            return
        total = recording.weight_counts[recording.index(layer)]
        self.note = f"Of {total:,} weights these {len(weights)} have a recorded trajectory and can be picked."
        flips, ticks = recording["flip_count"][recording.weights_of(layer)], max(1, recording.meta["tick_count"])
        if set(map(str, weights)) != set(self.buttons):  # their order is that of the first recording that is shown
            self.lay_out({f"weight {one}": {str(one): flips_in_words(flips[one])} for one in weights})
        for one in weights:
            self.buttons[str(one)].description = flips_in_words(flips[one])
        self.paint({str(one): flips[one] / ticks for one in weights})
        if self.value is None:
            self.value = str(weights[0])
