"""What happened in this run: in which layer, to which weight, and what became of the detections?

One widget over recordings. The network is a map of buttons coloured by flips at the chosen step; a click picks a layer,
a click on one of its sampled weights picks a weight. Whatever cannot be drawn leaves its sentence in the picture's place.
"""

from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import ipywidgets

from oscillab.recording.recording import Recording

from .layer_view import draw_layer_view
from .picking import LayerMap, WeightMap
from .picture_box import PictureBox, empty_picture, stacked
from .sightings import draw_sightings
from .style import method_style, text_figure

ALONE = "nothing"  # what to show beside a run
METHOD = {(False, False): "lsq", (True, False): "ema", (False, True): "lsq+qc", (True, True): "ema+qc"}


class RecordingExplorer(PictureBox):
    """Runs, layers, weights, steps and detections, to be played with.

    `runs`: name -> Recording, or name -> {"lsq": Recording of the live network, "ema": of its average}.
    `sightings`: a `Sightings`, and `image_of(number)` -> uint8 (H, W, 3), for the detections of the runs' network.
    `layer`: the one that is picked first; None: the low-bit one that flips most at the end.
    """

    def __init__(self, runs, *, sightings=None, image_of=None, layer=None):
        super().__init__(empty_picture(), empty_picture())
        self.runs, self.sightings, self.image_of = {}, sightings, image_of
        self._quiet = True
        self._make_controls()
        for name, run in runs.items():
            self._add(name, run)
        self.children = self._arranged()
        self._quiet = False
        if layer is not None and self.runs:
            self.recording().index(layer)  # raises for an unknown one
            self.network.value = layer
        self.refresh()

    def __repr__(self):
        return f"RecordingExplorer({', '.join(self.runs) or 'no recording'})"

    def open_file(self, path):
        """Add the recording of a file and show it; raises ValueError where it cannot be read."""
        recording, name = Recording.open(path), Path(path).stem
        with self._at_once():
            self._add(name, recording)
            self.run.value = name

    def recording(self, name=None):
        """The recording that is shown of a run, live or averaged as the EMA switch says."""
        if not self.runs:
            raise ValueError("no recording: open a file, or give runs={'name': oscillab.Recording.open(path)}")
        name = name or self.run.value
        kind = "ema" if self.ema.value else "lsq"
        if kind not in self.runs[name]:
            raise ValueError(
                f"{name} holds no recording of {method_style(kind).label}; it has {', '.join(self.runs[name])}"
            )
        return self.runs[name][kind]

    @property
    def method(self):
        """The method that the two switches choose."""
        return METHOD[self.ema.value, self.qc.value]

    def refresh(self):
        """Draw everything anew."""
        self.refresh_layer()
        self.refresh_detections()

    def refresh_layer(self, change=None):
        """Colour the maps and draw the layer anew."""
        if not self._quiet:
            with self._at_once(redraw=False):
                self._fill_maps()
            self.attempt(self._layer_figure, self.pictures[0])

    def refresh_detections(self, change=None):
        """Draw the detections anew."""
        if not self._quiet:
            self.attempt(self._detections_figure, self.pictures[1])

    def png(self):
        """Both pictures, one above the other, a little smaller."""
        return stacked(one.value for one in self.pictures)

    def _make_controls(self):
        wide = {"style": {"description_width": "initial"}}
        self.run = ipywidgets.Dropdown(description="run", **wide)
        self.beside = ipywidgets.Dropdown(options=[ALONE], description="beside it", **wide)
        self.path = ipywidgets.Text(placeholder="a file of yours: lsq.npz", description="open", **wide)
        self.path.continuous_update = False  # a path is read once it is whole
        self.ema = ipywidgets.ToggleButton(description="EMA", tooltip="show the average in place of the live network")
        self.qc = ipywidgets.ToggleButton(description="QC", tooltip="correct the network; its integer states stay")
        layout = {"width": "480px"}
        self.step = ipywidgets.IntSlider(description="step", max=1, continuous_update=False, layout=layout)
        numbers = self.sightings.pictures if self.sightings else []
        self.scene = ipywidgets.Dropdown(options=numbers, description="picture", **wide)
        self.network, self.weights = LayerMap(), WeightMap()
        self.path.observe(self._open_path, "value")
        for control in (self.run, self.beside, self.ema, self.step, self.network, self.weights):
            control.observe(self.refresh_layer, "value")
        for control in (self.run, self.ema, self.qc, self.scene):
            control.observe(self.refresh_detections, "value")

    def _arranged(self):
        return [
            ipywidgets.HBox([self.run, self.beside, self.path]),
            ipywidgets.HBox([self.ema, self.qc, self.step]),
            self.network,
            self.weights,
            self.pictures[0],
            *([self.scene] if self.sightings else []),
            self.pictures[1],
        ]

    def _add(self, name, run):
        self.runs[name] = dict(run) if isinstance(run, Mapping) else {"lsq": run}
        chosen = self.run.value, self.beside.value
        self.run.options, self.beside.options = list(self.runs), [ALONE, *self.runs]
        self.run.value, self.beside.value = chosen[0] or name, chosen[1]
        self.step.max = max(int(r.steps[-1]) for kinds in self.runs.values() for r in kinds.values())
        self.step.value = self.step.max if self.step.value in (0, 1) else self.step.value

    def _open_path(self, change):
        if not change["new"]:
            return
        try:
            self.open_file(change["new"])
        except ValueError as error:
            self.show(text_figure(str(error)))

    @contextmanager
    def _at_once(self, *, redraw=True):
        """Change several controls within the block; the picture follows once, after it."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before
        if redraw:
            self.refresh()

    def _fill_maps(self):
        try:
            recording = self.recording()
        except ValueError:
            return
        self.network.fill(recording, self.step.value)
        self.weights.fill(recording, self.network.value)

    def _layer_figure(self):
        kind = "ema" if self.ema.value else "lsq"
        runs = {self.run.value: (kind, self.recording())}
        if self.beside.value not in (ALONE, self.run.value):
            runs[self.beside.value] = (kind, self.recording(self.beside.value))
        weight = None if self.weights.value is None else int(self.weights.value)
        return draw_layer_view(runs, self.network.value, weight=weight, step=self.step.value)

    def _detections_figure(self):
        if self.sightings is None:
            return text_figure("no detections were recorded for these runs")
        missing = [name for name in self.recording().layer_names if name not in self.sightings.layers]
        if missing:
            raise ValueError(
                f"{self.run.value} records another network than the one whose detections these are "
                f"({self.sightings.content['network']}): that one has no layer '{missing[0]}'"
            )
        image = self.image_of(int(self.scene.value))
        shown = dict.fromkeys(("fp32", "lsq", "ema", self.method if self.qc.value else "ema+qc"))
        return draw_sightings(self.sightings, self.scene.value, image, methods=shown, chosen=self.method)
