"""Figures and widgets of recordings, drawn without torch. The public names are those of the stub beside this file."""

from oscillab.extras import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
