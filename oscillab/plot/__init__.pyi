from oscillab.plot.figures import draw as draw
from oscillab.plot.pictures import draw_pictures as draw_pictures
from oscillab.plot.recording_explorer import RecordingExplorer as RecordingExplorer
from oscillab.plot.running import Live as live  # noqa: N813  # README calls it as a function
from oscillab.plot.sightings import Sightings as RecordedDetections
from oscillab.plot.style import new_figure as new_figure
from oscillab.plot.widgets import LayerExplorer as LayerExplorer
from oscillab.plot.widgets import ToyExplorer as ToyExplorer
