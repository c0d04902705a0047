from oscillab.plot.figures import draw as draw
from oscillab.plot.images import draw_images as draw_images
from oscillab.plot.explorer import RecordingExplorer as RecordingExplorer
from oscillab.plot.live_widget import Live as live
from oscillab.plot.images import RecordedDetections as RecordedDetections
from oscillab.plot.style import new_figure as new_figure
from oscillab.plot.widgets import LayerExplorer as LayerExplorer
from oscillab.plot.widgets import ToyExplorer as ToyExplorer
