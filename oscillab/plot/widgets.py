"""Show figures in widgets: a box that keeps its image where no kernel runs, and explorers of a toy and of a layer.

A change of a control puts the new figure's PNG into the same image: no output area is cleared, so nothing flickers.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import ipywidgets
from PIL import Image

from .figures import draw as draw_figure
from .network import Runs, by_name
from .style import InlineFigure, text_figure, with_256_colors
from .toys import draw_one_weight


class ImageBox(ipywidgets.VBox):
    """A box of widgets around one or more images; a notebook stores what `png` returns for pages without a kernel."""

    def __init__(self, count: int = 1):
        layout = {"align_self": "flex-start", "max_width": "100%"}  # keeps its proportions in a narrow window
        self.images = [ipywidgets.Image(format="png", layout=layout) for _ in range(count)]
        self.image = self.images[0]
        super().__init__()

    def show(self, draw: Callable[[], InlineFigure], image: ipywidgets.Image | None = None) -> None:
        """Show the figure that `draw()` returns in an image, the first by default, or the sentence of its ValueError."""
        try:
            figure = draw()
        except ValueError as error:
            figure = text_figure(str(error))
        (image or self.image).value = figure.png()

    def png(self) -> bytes:
        """Return the bytes that stand for the widget where no kernel runs: its images, one above the other, a fifth smaller."""
        if len(self.images) == 1:
            return bytes(self.image.value)
        parts = [Image.open(BytesIO(one.value)) for one in self.images]
        size, top = (max(part.width for part in parts), sum(part.height for part in parts)), 0
        whole = Image.new("RGB", size, "white")
        for part in parts:
            whole.paste(part, (0, top))
            top += part.height
        whole, file = whole.resize((whole.width * 4 // 5, top * 4 // 5), Image.Resampling.LANCZOS), BytesIO()
        with_256_colors(whole).save(file, "png", optimize=True)
        return file.getvalue()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        return bundle | {"text/plain": repr(self), "image/png": b64encode(self.png()).decode()}


class Explorer(ImageBox):
    """Controls by name above the image of the figure that `draw(**values)` returns, or of its ValueError's sentence."""

    def __init__(self, draw: Callable[..., InlineFigure], controls: Mapping[str, ipywidgets.ValueWidget]):
        super().__init__()
        self.draw, self.controls = draw, dict(controls)
        self.children = [ipywidgets.HBox(list(self.controls.values())), self.image]
        for control in self.controls.values():
            control.observe(self.redraw, "value")
        self.redraw()

    def values(self) -> dict[str, Any]:
        """Return the present value of every control, by name."""
        return {name: control.value for name, control in self.controls.items()}

    def redraw(self, change: Any = None) -> None:
        """Draw the present values."""
        self.show(lambda: self.draw(**self.values()))

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.values().items())
        return f"{type(self).__name__}({settings})"


class ToyExplorer(Explorer):
    """The one-weight toy under three knobs: bits, learning rate and target.

    `simulate(target, bits=…, learning_rate=…, steps=…)` returns a trajectory: give `oscillab.toy.one_weight`.
    """

    def __init__(
        self, simulate: Callable[..., Any], *, bits: int = 3, learning_rate: float = 0.05, target: float = 0.2,
        steps: int = 300,
    ):  # fmt: skip
        slow: dict[str, Any] = {"continuous_update": False, "style": {"description_width": "initial"}}
        rate = {"min": -2.5, "max": -0.3, "description": "learning rate"}
        controls = {
            "bits": ipywidgets.IntSlider(bits, 2, 5, description="bits", **slow),
            "learning_rate": ipywidgets.FloatLogSlider(learning_rate, **rate, **slow),
            "target": ipywidgets.FloatSlider(target, min=-1.95, max=1.95, step=0.05, description="target w*", **slow),
        }
        super().__init__(lambda **knobs: draw_one_weight(simulate(steps=steps, **knobs)), controls)


OF_A_LAYER = ("latent weights", "trajectories", "states", "step size", "inputs", "rhythm")


class LayerExplorer(Explorer):
    """The figures of any layer of recordings (name -> Recording); raises ValueError for an unknown layer or figure."""

    def __init__(self, recordings: Runs, *, layer: str | None = None, picture: str = "latent weights"):
        if picture not in OF_A_LAYER:
            raise ValueError(f"picture must be one of {', '.join(OF_A_LAYER)}, got {picture!r}")
        runs = by_name(recordings)
        first = next(iter(runs.values()))
        names, at = first.layer_names, first.index(layer) if layer else 0
        controls = {
            "layer": ipywidgets.Dropdown(options=names, value=names[at], description="layer"),
            "picture": ipywidgets.Dropdown(options=OF_A_LAYER, value=picture, description="picture"),
        }
        super().__init__(lambda layer, picture: draw_figure(runs, picture, layer), controls)
