"""What if I turn this knob?

An `Explorer` is named controls above one picture. A change of a control draws the figure anew and puts its PNG into the
same image: no output area is cleared, so nothing flickers, and the notebook keeps the picture where no kernel runs.
"""

import ipywidgets

from . import plots
from .picture_box import PictureBox
from .toys import draw_one_weight

PICTURES = {  # of a layer: what draws it from recordings by method
    "latent weights": lambda recordings, layer: plots.draw_boundary_distance(next(iter(recordings.values())), layer),
    "trajectories": plots.draw_trajectories,
    "states": plots.draw_states,
    "step size": plots.draw_step_sizes,
    "inputs": lambda recordings, layer: plots.draw_ranges(next(iter(recordings.values())), layer),
    "rhythm": lambda recordings, layer: plots.draw_autocorrelation(next(iter(recordings.values())), layer),
}


class Explorer(PictureBox):
    """Controls by name above the picture that `draw(**values)` returns.

    `draw` is pure: plain values in, `Figure` out. When it raises ValueError, the message takes the picture's place and
    the controls go on working.
    """

    def __init__(self, draw, controls):
        super().__init__()
        self.draw, self.controls = draw, dict(controls)
        self.children = [ipywidgets.HBox(list(self.controls.values())), self.picture]
        for control in self.controls.values():
            control.observe(self.redraw, "value")
        self.redraw()

    def values(self):
        """The present value of every control, by name."""
        return {name: control.value for name, control in self.controls.items()}

    def redraw(self, change=None):
        """Draw the present values into the picture."""
        self.attempt(lambda: self.draw(**self.values()))

    def __repr__(self):
        settings = ", ".join(f"{name}={value!r}" for name, value in self.values().items())
        return f"{type(self).__name__}({settings})"


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


class LayerExplorer(Explorer):
    """The pictures of any layer of a recording; `recordings`: method -> Recording, the first is drawn where one can be.

    Raises ValueError for an unknown layer or picture.
    """

    def __init__(self, recordings, *, layer=None, picture="latent weights"):
        first = next(iter(recordings.values()))
        if picture not in PICTURES:
            raise ValueError(f"picture must be one of {', '.join(PICTURES)}, got {picture!r}")
        names, at = first.layer_names, first.index(layer) if layer else 0

        def draw(layer, picture):
            return PICTURES[picture](recordings, layer)

        controls = {
            "layer": ipywidgets.Dropdown(options=names, value=names[at], description="layer"),
            "picture": ipywidgets.Dropdown(options=list(PICTURES), value=picture, description="picture"),
        }
        super().__init__(draw, controls)
