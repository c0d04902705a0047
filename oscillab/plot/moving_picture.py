"""What is seen of a run while it goes on: loss, flips and step sizes over its steps."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from .curves import SPREAD, thinned
from .paper import Paper
from .style import INK, QUIET, method_style, new_figure, set_labels

PANELS = (
    ("loss", "training loss"),
    ("flips", "weights that flip in a step (%)"),
    ("step sizes", "step size / first step size"),
)
TICKS = [1, 2, 2.5, 5, 10]
WORDS = 0.067  # of the figure's width, left of each panel, for its ticks and label
ABOVE = 0.9  # of the figure's height: above it is the sentence
EXPLAINED = "Step sizes: the median layer, and the middle 80 % of layers (thin)"


class MovingPicture:
    """Loss, flips and step sizes over the steps of a run, of methods that are recorded side by side."""

    def __init__(self, methods):
        self.figure, axes = new_figure(9.6, 2.9, columns=len(PANELS))
        self.axes = dict(zip((name for name, _ in PANELS), axes[0], strict=True))
        for name, text in PANELS:
            set_labels(self.axes[name], x="optimizer step", y=text)
            self.axes[name].set_xlim(0, 50)
            for axis in (self.axes[name].xaxis, self.axes[name].yaxis):
                axis.set_major_locator(MaxNLocator(5, steps=TICKS))  # a tick's number costs more than a curve
        self.lines = {("loss", None, 0): self._line("loss", color=INK, linewidth=1.2)}
        for method in methods:
            style = method_style(method).line(linewidth=1.4)
            self.lines["flips", method, 0] = self._line("flips", **style)
            for place in range(len(SPREAD)):
                thin = {} if place == 1 else {"linewidth": 0.7, "alpha": 0.6, "label": None}
                self.lines["step sizes", method, place] = self._line("step sizes", **style | thin)
        self.axes["step sizes"].axhline(1, color=QUIET, linewidth=0.8, linestyle=":")
        self.axes["flips"].legend(frameon=False, fontsize=8, loc="upper right")
        self.figure.set_layout_engine(None)  # places that are fixed are drawn three times as fast
        self.figure.subplots_adjust(left=0.065, right=0.98, bottom=0.17, top=0.87, wspace=0.34)
        self.sentence = self.figure.text(0.01, 0.98, EXPLAINED, ha="left", va="top", color=INK, fontsize=10)
        self.paper = Paper(self.figure, self._parts())

    def _parts(self):
        left = [one.get_position().x0 - WORDS for one in self.axes.values()]
        places = zip([0, *left[1:]], [*left[1:], 1], strict=True)
        parts = {name: (self.axes[name], (x0, 0, x1, ABOVE)) for name, (x0, x1) in zip(self.axes, places, strict=True)}
        return parts | {"sentence": (self.sentence, (0, ABOVE, 1, 1))}

    def expect(self, total_steps):
        """Make room for so many steps, and draw what can be drawn before the first."""
        for name, axes in self.axes.items():
            axes.set_xlim(0, total_steps)
            self.paper.changed(name)

    def say(self, text):
        """Put a sentence above the panels, before what explains them."""
        self.sentence.set(text=f"{text} {EXPLAINED}")
        self.paper.changed("sentence")

    def _line(self, panel, **style):
        return self.axes[panel].plot([], [], animated=True, **style)[0]

    def update(self, curves, *, last=False):
        """Take the present values of `curves` (a `Curves`); the `last` picture of a run does not depend on those before it."""
        self.lines["loss", None, 0].set_data(*thinned(*curves.loss))
        for method in curves.recorders:
            steps, shares = thinned(*curves.flips[method])
            self.lines["flips", method, 0].set_data(steps[1:], 100 * shares[1:])  # row 0 is before the first step
            steps, spread = thinned(*curves.step_sizes[method])
            for place in range(len(SPREAD)):
                self.lines["step sizes", method, place].set_data(steps, spread[:, place])
        for name in self.axes:
            self._make_room(name, last)

    def _make_room(self, panel, last):
        """Widen a panel, with some room to spare, where a line leaves it; the last time it gets the room that it needs."""
        axes, lines = self.axes[panel], [line for (name, *_), line in self.lines.items() if name == panel]
        steps, values = (np.concatenate([line.get_data()[i] for line in lines]) for i in (0, 1))
        if not len(values) or not np.isfinite(values).any():
            return
        right, (low, high) = axes.get_xlim()[1], axes.get_ylim()
        if last or steps.max() > right:
            axes.set_xlim(0, max(1, steps.max()) * (1 if last else 1.5))
            self.paper.changed(panel)
        least, most = np.nanmin(values), np.nanmax(values)
        if not last and not axes.get_autoscaley_on() and low <= least and most <= high:
            return
        share = 0.1 if last else 0.4  # room that the next steps will not leave at once
        spare = max(share * (most - least), 0.05 * abs(most)) or 1
        axes.set_ylim(min(0, least) if panel != "step sizes" else least - spare, most + spare)
        self.paper.changed(panel)

    def png(self):
        """The picture as PNG bytes, quickly."""
        self.paper.lay(self.lines.values())
        return self.paper.png()
