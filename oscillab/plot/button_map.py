"""How is something picked by clicking it in a picture, with Jupyter's own widgets alone?

The picture is a map of buttons: each part is a button in the colour of its value, so that it can be clicked, reached by
the keyboard and read by a screen reader.
"""

import ipywidgets
import matplotlib
import traitlets
from matplotlib.colors import to_hex, to_rgb

from .style import MAP, METHODS

SHADES = 8  # colours of the scale; each is one style that many buttons share
EMPTY = "#eeeeee"


class ButtonMap(ipywidgets.VBox):
    """Groups of buttons, one of which is chosen: `value` is its key, or None. `what` says what the colours mean.

    `note`: what else is to be said of the buttons; it stands beside the scale, or in its place where there is no button.
    """

    value = traitlets.Unicode(None, allow_none=True)

    def __init__(self, what):
        self.what, self.note, self.buttons, self.groups = what, "", {}, {}
        self.styles = [ipywidgets.ButtonStyle(button_color=c, text_color=ink_on(c)) for c in shades()]
        self.unknown = ipywidgets.ButtonStyle(button_color=EMPTY)
        size = {"width": "auto", "height": "30px", "padding": "0 6px", "margin": "1px"}
        self.plain = ipywidgets.Layout(**size, border="2px solid transparent")
        self.chosen = ipywidgets.Layout(**size, border=f"2px solid {METHODS['ema+qc'].color}")
        self.title_layout, self.title_style = ipywidgets.Layout(height="26px"), ipywidgets.Label().style
        self.column_layout = ipywidgets.Layout(margin="0 4px 4px 0")
        self.legend = ipywidgets.HTML()
        self.parts = ipywidgets.Box(layout={"flex_flow": "row wrap", "align_items": "flex-start"})
        super().__init__([self.legend, self.parts])

    def lay_out(self, groups):
        """Show the buttons of `groups` (title -> key -> label); nothing is chosen where the chosen key is gone."""
        shown = {title: tuple(labels) for title, labels in groups.items()}
        if not shown:
            self.legend.value = self.note
        if shown == self.groups:
            return
        self.groups, self.buttons = shown, {}
        self._close_parts()
        self.parts.children = [self._group(title, labels) for title, labels in groups.items()]
        self.value = self.value if self.value in self.buttons else None
        self._mark()

    def _group(self, title, labels):
        column = [ipywidgets.Label(title, layout=self.title_layout, style=self.title_style)]
        for key, text in labels.items():
            button = ipywidgets.Button(description=text, layout=self.plain, style=self.unknown)
            button.on_click(lambda _, key=key: self.choose(key))
            self.buttons[key] = button
            column.append(button)
        return ipywidgets.VBox(column, layout=self.column_layout)

    def _close_parts(self):
        """Take the buttons that are shown out of the page and out of the notebook's stored state."""
        for column in self.parts.children:
            for one in (*column.children, column):
                one.close()

    def choose(self, key):
        """Choose a button, as a click does; raises ValueError for a key that the map has not."""
        if key not in self.buttons:
            raise ValueError(f"the map has no '{key}'; it has {', '.join(self.buttons) or 'nothing'}")
        self.value = key

    @traitlets.observe("value")
    def _mark(self, change=None):
        for key, button in self.buttons.items():
            button.layout = self.chosen if key == self.value else self.plain

    def paint(self, rates, *, top=None):
        """Colour the buttons by `rates` (key -> share, or None where unknown), on a scale from 0 to `top`, else the largest."""
        top = top or max((rate for rate in rates.values() if rate is not None), default=0) or 1e-12
        for key, button in self.buttons.items():
            rate = rates.get(key)
            button.style = self.unknown if rate is None else self.styles[int(min(rate / top, 1) * (SHADES - 1) + 0.5)]
            button.tooltip = f"{key}: {'unknown' if rate is None else f'{100 * rate:.2g} %'} {self.what}"
        blocks = "".join(f'<span style="background:{c}">&emsp;</span>' for c in shades())
        self.legend.value = f"0 {blocks} {100 * top:.2g} % {self.what}. {self.note}"


def shades():
    """The colours of the scale, low to high."""
    scale = matplotlib.colormaps[MAP]
    return [to_hex(scale(i / (SHADES - 1))) for i in range(SHADES)]


def ink_on(color):
    """Black or white, whichever is read more easily on the colour.

    >>> ink_on("#ffea46"), ink_on("#00224e")
    ('black', 'white')
    """
    red, green, blue = to_rgb(color)
    return "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.45 else "white"


def stages(names):
    """The layers grouped by the module of the network that they belong to: title -> name -> label.

    >>> stages(["model.0.conv", "model.2.cv1.conv", "model.2.m.0.cv1.conv", "head"])
    {'model.0': {'model.0.conv': 'conv'}, 'model.2': {'model.2.cv1.conv': 'cv1', 'model.2.m.0.cv1.conv': 'm.0.cv1'},
     'head': {'head': 'head'}}
    """
    groups = {}
    for name in names:
        title, _, rest = name.partition(".")
        if rest[:1].isdigit():
            number, _, rest = rest.partition(".")
            title = f"{title}.{number}"
        groups.setdefault(title, {})[name] = rest.removesuffix(".conv") or name
    return groups
