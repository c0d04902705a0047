"""Which convolutions read the very same tensor, and how do they share one quantizer of it?

A C3 block's two branches, or an ELAN block's, begin with convolutions of one input. The paper gives each convolution a
quantizer of its own; `QuantSpec(share_inputs=True)` gives such a group one, which quantizes the tensor once a forward pass
and hands every reader the same result. By values it is as many quantizers that are tied to one step size.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .calibrate import eval_mode, quantizers_off
from .quantizer import Quantizer

SIDE = 64  # pixels of the picture that shows who reads what; a multiple of the detectors' coarsest stride


class SharedQuantizer(Quantizer):
    """A Quantizer of `reader_count` layers, which remembers its output until the last of them has read it."""

    def forward(self, x: Tensor) -> Tensor:
        """The quantized `x`: the same tensor for the same `x`, until it was read by all or something has changed."""
        key = x._version, self.step_size._version, torch.is_grad_enabled(), self.training, self.enabled
        if self._held and self._held[0] is x and self._held[1] == key:
            _, _, y, read_count = self._held
        else:
            y, read_count = super().forward(x), 0
        self._held = None if read_count + 1 >= self.reader_count else (x, key, y, read_count + 1)
        return y

    def __getstate__(self):
        """The module without what it remembers, which belongs to one forward pass (copies and pickles have none)."""
        return {**super().__getstate__(), "_held": None}

    @classmethod
    def of(cls, quantizer: Quantizer, reader_count: int) -> "SharedQuantizer":
        """`quantizer` itself, shared by so many layers from now on."""
        quantizer.__class__ = cls
        quantizer.reader_count, quantizer._held = reader_count, None
        return quantizer


def share_inputs(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Nothing; `layers` (QuantConv2d by name) of equal bits that read one tensor get one input quantizer, in place."""
    for names in same_inputs(model, layers):
        by_bits: dict[int, list] = {}
        for name in names:
            by_bits.setdefault(layers[name].bits, []).append(layers[name])
        for group in by_bits.values():
            if len(group) > 1:
                shared = SharedQuantizer.of(group[0].input_quantizer, len(group))
                for layer in group[1:]:
                    layer.input_quantizer = shared


def same_inputs(model: nn.Module, layers: dict[str, nn.Module]) -> list[list[str]]:
    """The names of `layers` in groups that read the same tensor, found by one forward pass of a grey picture.

    Raises ValueError where the model takes no picture of SIDE pixels.
    """
    seen: dict[int, tuple[Tensor, list[str]]] = {}  # the tensors themselves, so that no address is used twice
    handles = [layer.register_forward_pre_hook(_noting(seen, name)) for name, layer in layers.items()]
    like = next(model.parameters())
    channels = next(iter(layers.values())).in_channels
    try:
        with quantizers_off(model), eval_mode(model), torch.no_grad():
            model(torch.full((1, channels, SIDE, SIDE), 0.5, dtype=like.dtype, device=like.device))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"share_inputs needs a model that takes {(1, channels, SIDE, SIDE)}, got: {reason}") from error
    finally:
        for handle in handles:
            handle.remove()
    return [names for _, names in seen.values()]


def _noting(seen: dict, name: str):
    def note(_module: nn.Module, inputs: Iterable) -> None:
        names = seen.setdefault(id(inputs[0]), (inputs[0], []))[1]
        if name not in names:
            names.append(name)

    return note
