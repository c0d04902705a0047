"""The quantizer and its way into a network: LSQ, `QuantConv2d`, `QuantSpec`, `quantize`.

The quantizing function itself is `oscillab.quant.lsq.lsq`; exported here, it would hide its own module.
"""

from .calibrate import calibrate, eval_mode, quantizers, quantizers_off
from .layers import QuantConv2d, QuantSpec, held_step_sizes, is_quantized, quant_layers, quantize, step_sizes
from .lsq import bin_limits, integer_state
from .quantizer import Quantizer

__all__ = [
    "QuantConv2d",
    "QuantSpec",
    "Quantizer",
    "bin_limits",
    "calibrate",
    "eval_mode",
    "held_step_sizes",
    "integer_state",
    "is_quantized",
    "quant_layers",
    "quantize",
    "quantizers",
    "quantizers_off",
    "step_sizes",
]
