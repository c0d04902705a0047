"""How does a widget keep its picture where no kernel runs?"""

from base64 import b64encode

import ipywidgets

from .style import sentence


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
            figure = sentence(str(error))
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
