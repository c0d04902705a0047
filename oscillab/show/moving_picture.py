"""How is a picture drawn anew many times without slowing what it shows?

The paper with its axes is drawn once and kept; a refresh lays the lines over a copy of it. Only where a curve leaves its
panel is the paper drawn again.
"""

from io import BytesIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from .curves import SPREAD, thinned
from .style import INK, QUIET, blank, finding, label, look

PANELS = (
    ("loss", "training loss"),
    ("flips", "weights that flip in a step (%)"),
    ("step sizes", "step size / first step size"),
)


class MovingPicture:
    """Loss, flips and step sizes over the steps of a run, of methods that are recorded side by side."""

    def __init__(self, methods):
        self.figure, axes = blank(9.6, 2.9, columns=len(PANELS))
        self.axes = dict(zip((name for name, _ in PANELS), axes[0], strict=True))
        for name, text in PANELS:
            label(self.axes[name], x="optimizer step", y=text)
            self.axes[name].set_xlim(0, 50)
        self.lines = {("loss", None, 0): self._line("loss", color=INK, linewidth=1.2)}
        for method in methods:
            style = look(method).line(linewidth=1.4)
            self.lines["flips", method, 0] = self._line("flips", **style)
            for place in range(len(SPREAD)):
                thin = {} if place == 1 else {"linewidth": 0.7, "alpha": 0.6, "label": None}
                self.lines["step sizes", method, place] = self._line("step sizes", **style | thin)
        self.axes["step sizes"].axhline(1, color=QUIET, linewidth=0.8, linestyle=":")
        self.axes["flips"].legend(frameon=False, fontsize=8, loc="upper right")
        self.figure.set_layout_engine(None)  # places that are fixed are drawn three times as fast
        self.figure.subplots_adjust(left=0.06, right=0.99, bottom=0.17, top=0.96, wspace=0.24)
        self._canvas, self._paper = FigureCanvasAgg(self.figure), None

    def expect(self, total_steps):
        """Make room for so many steps."""
        for axes in self.axes.values():
            axes.set_xlim(0, total_steps)
        self._paper = None

    def _line(self, panel, **style):
        return self.axes[panel].plot([], [], animated=True, **style)[0]

    def update(self, curves):
        """Take the present values of `curves` (a `Curves`)."""
        self.lines["loss", None, 0].set_data(*thinned(*curves.loss))
        for method in curves.recorders:
            steps, shares = thinned(*curves.flips[method])
            self.lines["flips", method, 0].set_data(steps[1:], 100 * shares[1:])  # row 0 is before the first step
            steps, spread = thinned(*curves.step_sizes[method])
            for place in range(len(SPREAD)):
                self.lines["step sizes", method, place].set_data(steps, spread[:, place])
        for name in self.axes:
            self._make_room(name)

    def _make_room(self, panel):
        """Widen a panel, with some room to spare, where a line leaves it; in height what the first steps did is cut."""
        axes, lines = self.axes[panel], [line for (name, *_), line in self.lines.items() if name == panel]
        steps, values = (np.concatenate([line.get_data()[i] for line in lines]) for i in (0, 1))
        if not len(values) or not np.isfinite(values).any():
            return
        right, (low, high) = axes.get_xlim()[1], axes.get_ylim()
        if steps.max() > right:
            axes.set_xlim(0, 1.5 * steps.max())
            self._paper = None
        least, most = np.nanmin(values), np.nanmax(values)
        if not axes.get_autoscaley_on() and low <= least and most <= high:
            return
        spare = 0.25 * (most - least) or 0.1 * abs(most) or 1
        axes.set_ylim(min(0, least) if panel != "step sizes" else least - spare, most + spare)
        self._paper = None

    def png(self):
        """The picture as PNG bytes, quickly."""
        if self._paper is None:
            self._canvas.draw()
            self._paper = self._canvas.copy_from_bbox(self.figure.bbox)
        self._canvas.restore_region(self._paper)
        for (panel, *_), line in self.lines.items():
            self.axes[panel].draw_artist(line)
        image = Image.frombuffer("RGBA", self._canvas.get_width_height(), self._canvas.buffer_rgba()).convert("RGB")
        file = BytesIO()
        image.save(file, "png", compress_level=1)
        return file.getvalue()

    def finished(self, text):
        """The figure under one sentence, with its lines drawn for good."""
        self.figure.subplots_adjust(top=0.87)
        for line in self.lines.values():
            line.set_animated(False)
        return finding(self.figure, text)
