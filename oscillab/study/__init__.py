"""The study: a grid of QAT runs, each with everything that is measured on it, as jobs that a killed study goes on with."""

from oscillab.extras import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
