"""What if I turn this knob?

An `Explorer` is named controls above one picture. A change of a control draws the figure anew and puts its PNG into the
same image: no output area is cleared, so nothing flickers, and the notebook keeps the picture where no kernel runs.
The only importer of ipywidgets.
"""

from base64 import b64encode

import ipywidgets

from .style import sentence
from .toys import draw_one_weight


class Explorer(ipywidgets.VBox):
    """Controls by name above the picture that `draw(**values)` returns.

    `draw` is pure: plain values in, `Figure` out. When it raises ValueError, the message takes the picture's place and
    the controls go on working.
    """

    def __init__(self, draw, controls):
        self.draw, self.controls = draw, dict(controls)
        self.picture = ipywidgets.Image(format="png", layout={"align_self": "flex-start", "max_width": "100%"})
        super().__init__([ipywidgets.HBox(list(self.controls.values())), self.picture])
        for control in self.controls.values():
            control.observe(self.redraw, "value")
        self.redraw()

    def values(self):
        """The present value of every control, by name."""
        return {name: control.value for name, control in self.controls.items()}

    def redraw(self, change=None):
        """Draw the present values into the picture."""
        try:
            figure = self.draw(**self.values())
        except ValueError as error:
            figure = sentence(str(error))
        self.picture.value = figure.png()

    def __repr__(self):
        settings = ", ".join(f"{name}={value!r}" for name, value in self.values().items())
        return f"{type(self).__name__}({settings})"

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        return bundle | {"text/plain": repr(self), "image/png": b64encode(self.picture.value).decode()}


class ToyExplorer(Explorer):
    """The one-weight toy under three knobs: bits, learning rate and target.

    `simulate(target, bits=…, learning_rate=…)` returns a trajectory; `oscillab.toy.one_weight` is the one to give.
    """

    def __init__(self, simulate, *, bits=3, learning_rate=0.05, target=0.2, steps=300):
        def draw(bits, learning_rate, target):
            run = simulate(target, bits=bits, learning_rate=learning_rate, steps=steps)
            return draw_one_weight(run)

        slow = {"continuous_update": False, "style": {"description_width": "initial"}}
        controls = {
            "bits": ipywidgets.IntSlider(bits, 2, 5, description="bits", **slow),
            "learning_rate": ipywidgets.FloatLogSlider(
                learning_rate, min=-2.5, max=-0.3, description="learning rate", **slow
            ),
            "target": ipywidgets.FloatSlider(target, min=-1.95, max=1.95, step=0.05, description="target w*", **slow),
        }
        super().__init__(draw, controls)
