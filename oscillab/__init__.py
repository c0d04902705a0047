"""See, measure and repair what goes wrong when YOLO detectors are trained at 4 and 3 bits.

The public names are those of the stub beside this file; each is imported when it is first used.
"""

from oscillab.extras import attach

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach(__name__, __file__)
