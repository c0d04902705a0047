"""Explore recordings in one widget: in which layer, to which weight, at which step, and what became of the detections.

The network is a map of buttons coloured by flips at the chosen step; a click picks a layer, a click on one of its sampled
weights picks a weight. Whatever cannot be drawn leaves its sentence in the figure's place.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np

from oscillab.methods import METHODS, method
from oscillab.recording.recording import Recording

from .images import RecordedDetections, draw_detections
from .layer_view import draw_layer_view
from .selectors import LayerSelector, WeightSelector
from .style import InlineFigure, text_figure
from .widgets import ImageBox

ALONE = "nothing"  # what to show beside a run
WIDE = {"description_width": "initial"}


class RecordingExplorer(ImageBox):
    """Runs, layers, weights, steps and detections, to be explored.

    `runs`: a Recording, name -> Recording, labelled by that name, or name -> {"lsq": Recording of the live network,
    "ema": of its average}.
    `detections`: `RecordedDetections` of the first run, shown under no other, and `image_of(number)` -> uint8 (H, W, 3).
    `layer`: the one that is picked first; None: the low-bit one that flips most at the end.
    """

    def __init__(
        self, runs: Recording | Mapping[str, Recording | Mapping[str, Recording]], *, layer: str | None = None,
        detections: RecordedDetections | None = None, image_of: Callable[[int], np.ndarray] | None = None,
    ):  # fmt: skip
        super().__init__(2)
        self.runs: dict[str, dict[str, Recording]] = {}
        self.own: set[str] = set()  # runs that are labelled by their name
        self.files: dict[str, Path] = {}
        self.detections, self.image_of, self._quiet = detections, image_of, True
        self._make_controls()
        given = {"recording": {"lsq": runs}} if isinstance(runs, Recording) else runs
        self.detected = next(iter(given), None)  # the run that the detections are of
        for name, run in given.items():
            self._add(name, run)
        self.children = [
            ipywidgets.HBox([self.run, self.beside, self.path]),
            ipywidgets.HBox([self.ema, self.qc, self.step]),
            *(self.network, self.weights, self.images[0], *([self.scene] if detections else []), self.images[1]),
        ]
        self._quiet = False
        if layer is not None and self.runs:
            self.recording().index(layer)  # raises for an unknown one
            self.network.value = layer
        self.refresh_layer()
        self.refresh_detections()

    def __repr__(self) -> str:
        return f"RecordingExplorer({', '.join(self.runs) or 'no recording'})"

    def open_file(self, path: Path | str) -> None:
        """Add the recording of a file under the file's name and show it; raises ValueError where it cannot be read."""
        recording, path = Recording.open(path), Path(path).resolve()
        taken = path.stem in self.runs and self.files.get(path.stem) != path
        name = f"{path.parent.name}/{path.stem}" if taken else path.stem
        self.files[name] = path
        with self._at_once():
            self._add(name, recording)
            self.run.value = name
        self.refresh_layer()
        self.refresh_detections()

    def recording(self, name: str | None = None) -> Recording:
        """Return the recording that is shown of a run, live or averaged as the EMA switch says."""
        return self._shown(name)[1]

    def _shown(self, name: str | None = None) -> tuple[str, Recording]:
        """Return what labels the recording of a run (the picked one by default), and the recording."""
        if not self.runs:
            raise ValueError("no recording: open a file, or give runs={'name': oscillab.Recording.open(path)}")
        name = name or self.run.value
        run = self.runs[name]
        kind = "ema" if self.ema.value else "lsq" if "lsq" in run else next(iter(run))
        if kind not in run:
            raise ValueError(f"{name} holds no recording of {method(kind).label}; it has {', '.join(run)}")
        return name if name in self.own else kind, run[kind]

    @property
    def method(self) -> str:
        """The method that the two switches choose."""
        return f"{'ema' if self.ema.value else 'lsq'}{'+qc' if self.qc.value else ''}"

    def refresh_layer(self, change: Any = None) -> None:
        """Colour the maps and draw the layer anew."""
        if not self._quiet:
            with self._at_once(), suppress(ValueError):  # the figure says why
                self.network.fill(self.recording(), self.step.value)
                self.weights.fill(self.recording(), self.network.value)
            self.show(self._layer_figure, self.images[0])

    def refresh_detections(self, change: Any = None) -> None:
        """Draw the detections anew."""
        if not self._quiet:
            self.show(self._detections_figure, self.images[1])

    def _make_controls(self) -> None:
        self.run = ipywidgets.Dropdown(description="run", style=WIDE)
        self.beside = ipywidgets.Dropdown(options=[ALONE], description="beside it", style=WIDE)
        late: dict[str, Any] = {"continuous_update": False}
        self.path = ipywidgets.Text(placeholder="a file of yours: lsq.npz", description="open", style=WIDE, **late)
        self.ema = ipywidgets.ToggleButton(description="EMA", tooltip="show the average in place of the live network")
        self.qc = ipywidgets.ToggleButton(description="QC", tooltip="correct the network; its integer states stay")
        self.step = ipywidgets.IntSlider(description="step", max=1, layout={"width": "480px"}, **late)
        numbers = self.detections.images if self.detections else []
        self.scene = ipywidgets.Dropdown(options=numbers, description="image", style=WIDE)
        self.network, self.weights = LayerSelector(), WeightSelector()
        self.path.observe(self._open_path, "value")
        for control in (self.run, self.beside, self.ema, self.step, self.network, self.weights):
            control.observe(self.refresh_layer, "value")
        for control in (self.run, self.ema, self.qc, self.scene):
            control.observe(self.refresh_detections, "value")

    def _add(self, name: str, run: Recording | Mapping[str, Recording]) -> None:
        if isinstance(run, Recording):
            self.own.add(name)
            run = {kind if (kind := Path(name).name) in METHODS else "lsq": run}
        self.runs[name] = dict(run)
        chosen = self.run.value, self.beside.value
        self.run.options, self.beside.options = list(self.runs), [ALONE, *self.runs]
        self.run.value, self.beside.value = chosen[0] or name, chosen[1]
        self.step.max = max(int(r.steps[-1]) for kinds in self.runs.values() for r in kinds.values())
        self.step.value = self.step.max if self.step.value in (0, 1) else self.step.value

    def _open_path(self, change: Any) -> None:
        if change["new"]:
            try:
                self.open_file(change["new"])
            except ValueError as error:
                self.image.value = text_figure(str(error)).png()

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Change several controls within the block without drawing."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _layer_figure(self) -> InlineFigure:
        runs = {self.run.value: self._shown()}
        if self.beside.value not in (ALONE, self.run.value):
            runs[self.beside.value] = self._shown(self.beside.value)
        weight = None if self.weights.value is None else int(self.weights.value)
        return draw_layer_view(runs, self.network.value, weight=weight, step=self.step.value)

    def _detections_figure(self) -> InlineFigure:
        if self.detections is None or self.image_of is None:
            return text_figure("no detections were recorded for these runs")
        if self.run.value != self.detected:
            return text_figure(
                f"no detections were recorded for {self.run.value}; those of {self.detected} are not its own"
            )
        missing = [name for name in self.recording().layer_names if name not in self.detections.layers]
        if missing:
            other = f"another network than the one whose detections these are ({self.detections.content['network']})"
            raise ValueError(f"{self.run.value} records {other}: that one has no layer '{missing[0]}'")
        image, last = self.image_of(int(self.scene.value)), self.method if self.qc.value else "ema+qc"
        shown = ("fp32", "lsq", "ema", last)
        return draw_detections(self.detections, self.scene.value, image, methods=shown, chosen=self.method)
