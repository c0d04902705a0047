"""How is a figure drawn anew many times, cheaply?

Most of what a figure costs are its ticks and words, and they seldom change. So each part of the figure is drawn once and
its pixels are kept; a part that changed is drawn again alone, and the lines that move are laid over a copy of the whole.
"""

from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox
from PIL import Image

COLORS = 128  # of a picture: a drawing has few, and its PNG is then a third of the size


class Paper:
    """The pixels of a figure whose parts are drawn one by one.

    `parts`: name -> (artist, (left, bottom, right, top)), in shares of the figure; they do not overlap. Artists that are
    `animated` are left out of a part; see `lay`.
    """

    def __init__(self, figure, parts):
        self.canvas, self.figure = FigureCanvasAgg(figure), figure
        self.artists = {name: artist for name, (artist, _) in parts.items()}
        self._renderer = self.canvas.get_renderer()
        size = figure.bbox
        self._places = {
            name: Bbox.from_extents(
                *(round(share * side) for share, side in zip(place, 2 * (size.width, size.height), strict=True))
            )
            for name, (_, place) in parts.items()
        }
        figure.patch.draw(self._renderer)
        self._empty = {name: self.canvas.copy_from_bbox(place) for name, place in self._places.items()}
        self._drawn, self.draw_count = {}, 0

    def changed(self, name):
        """The part has to be drawn again."""
        self._drawn.pop(name, None)

    def prepare(self):
        """Draw what has changed, and leave the parts without their moving lines on the canvas."""
        for pixels in self._drawn.values():
            self.canvas.restore_region(pixels)
        for name in [name for name in self._places if name not in self._drawn]:
            self.canvas.restore_region(self._empty[name])
            self.artists[name].draw(self._renderer)
            self._drawn[name] = self.canvas.copy_from_bbox(self._places[name])
            self.draw_count += 1

    def lay(self, artists):
        """Draw the moving artists over the parts."""
        self.prepare()
        for artist in artists:
            artist.draw(self._renderer)

    def png(self):
        """What is on the canvas, as PNG bytes."""
        size = self.canvas.get_width_height()
        image = Image.frombuffer("RGBA", size, self.canvas.buffer_rgba()).convert("RGB")
        file = BytesIO()
        image.quantize(COLORS, method=Image.Quantize.FASTOCTREE).save(file, "png", compress_level=6)
        return file.getvalue()
