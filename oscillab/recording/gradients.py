"""Is a step size pushed to and fro?

A bin edge moves with the step size, so that a step size whose gradient changes its sign at every other step makes
weights flip that stand still themselves. Looked at are the trained parameters `weight_quantizer.step_size` and
`input_quantizer.step_size` of a layer, where it has them.
"""

import torch
from torch import Tensor, nn

from oscillab.recording.watched import WatchedLayers

QUANTIZERS = ("weight_quantizer", "input_quantizer")


class GradientSigns:
    """The last sign of the gradient of every step size, and of which layers' step sizes it turns.

    A gradient that is zero, NaN or missing has no sign and changes nothing. `sides`: 0 where step sizes of weights are
    looked at, 1 where those of inputs are; empty for a model that is not trained, such as an average.
    """

    def __init__(self, layers: WatchedLayers):
        both = [(side, i, trained(module, side)) for side in (0, 1) for i, module in enumerate(layers.modules)]
        found = [(side, i, parameter) for side, i, parameter in both if parameter is not None]
        self.sides = sorted({side for side, _, _ in found})
        self.trained = {(side, i) for side, i, _ in found}  # (side, layer)
        self._parameters = [p for _, _, p in found]
        self._none = [torch.zeros_like(p).reshape(-1) for p in self._parameters]
        places = [torch.full((p.numel(),), side * len(layers.layers) + i) for side, i, p in found]
        self._place = torch.cat(places).to(layers.device) if places else torch.zeros(0, dtype=torch.int64)
        self.last = torch.zeros(len(self._place), dtype=torch.int8, device=layers.device)
        self._turned = torch.zeros(2, len(layers.layers), dtype=torch.int32, device=layers.device)

    def turns(self) -> Tensor:
        """How many of each layer's step sizes have a gradient of another sign than the last, int32 (2, layers).

        Row 0 counts those of weights, row 1 those of inputs. Call it once a tick, before gradients are cleared.
        """
        self._turned.zero_()
        if not self._parameters:
            return self._turned
        pairs = zip(self._parameters, self._none, strict=True)
        each = [none if (grad := parameter.grad) is None else grad for parameter, none in pairs]
        gradients = torch.cat([grad.reshape(-1) for grad in each])
        sign = (gradients > 0).to(torch.int8) - (gradients < 0).to(torch.int8)  # NaN has none
        turned = sign * self.last == -1
        self.last = torch.where(sign != 0, sign, self.last)
        self._turned.view(-1).index_add_(0, self._place, turned.to(torch.int32))
        return self._turned


def trained(module: nn.Module, side: int) -> nn.Parameter | None:
    """The parameter of a layer's weight step size (side 0) or of its input's (1), where there is one that is trained."""
    step_size = getattr(getattr(module, QUANTIZERS[side], None), "step_size", None)
    return step_size if isinstance(step_size, nn.Parameter) and step_size.requires_grad else None
