"""How does a widget keep its picture where no kernel runs?"""

from base64 import b64encode
from io import BytesIO

import ipywidgets
from PIL import Image

from .style import of_256_colors, text_figure


class PictureBox(ipywidgets.VBox):
    """A box of widgets around one or more pictures: PNGs in `Image`s, so that nothing flickers when they change.

    Beside the widget, a notebook stores the first picture as image/png, which pages without a kernel and exports show.
    """

    def __init__(self, *pictures):
        self.picture, *_ = self.pictures = pictures or (empty_picture(),)
        super().__init__()

    def show(self, figure, picture=None):
        """Put a `Figure` into the picture (the first one where none is named)."""
        (picture or self.picture).value = figure.png()

    def attempt(self, draw, picture=None):
        """Show the Figure that `draw()` returns; where it raises ValueError, its sentence takes the picture's place."""
        try:
            figure = draw()
        except ValueError as error:
            figure = text_figure(str(error))
        self.show(figure, picture)

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        return bundle | {"text/plain": repr(self), "image/png": b64encode(self.png()).decode()}

    def png(self):
        """The bytes that stand for the widget where no kernel runs."""
        return self.picture.value


def empty_picture():
    """An Image that keeps its proportions in a narrow window."""
    return ipywidgets.Image(format="png", layout={"align_self": "flex-start", "max_width": "100%"})


def stacked(pictures):
    """One picture (PNG bytes) of several, one above the other, at four fifths of their size."""
    images = [Image.open(BytesIO(one)) for one in pictures]
    whole = Image.new("RGB", (max(i.width for i in images), sum(i.height for i in images)), "white")
    for number, image in enumerate(images):
        whole.paste(image, (0, sum(above.height for above in images[:number])))
    whole = whole.resize((whole.width * 4 // 5, whole.height * 4 // 5), Image.Resampling.LANCZOS)
    file = BytesIO()
    of_256_colors(whole).save(file, "png", optimize=True)
    return file.getvalue()
