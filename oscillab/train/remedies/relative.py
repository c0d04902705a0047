"""Train step sizes in the log domain, so that an update changes each by a share of itself (as TQT does, 1903.08066).

Adam moves a parameter by about its rate, whatever the parameter's size: at 1e-3 a step size of 0.02 moves by 5 % a step, and
every bin edge with it. How many of the flips are the edges' alone?
"""

import torch

from oscillab.train.remedies import Remedy


class RelativeStepSizes(Remedy):
    """Give the optimizer log(s) in place of each step size s: the gradient is s * dL/ds, the update s * exp(delta).

    `delta` is what the optimizer would add to log(s). Parameters, files and names stay as they are, and no step size can
    fall to zero. A gradient's norm is clipped before, with dL/ds.
    """

    def before_step(self) -> None:
        """Turn each step size's gradient into that of its logarithm."""
        grids = (grid for layer in self.layers for grid in (layer.weight_quantizer, layer.input_quantizer))
        trained = {id(grid.step_size): grid.step_size for grid in grids if grid.step_size.grad is not None}
        self._moved = [(s, s.clone()) for s in trained.values()]
        for s, value in self._moved:
            s.grad = None if s.grad is None else s.grad * value

    def after_step(self) -> None:
        """Turn what was added to each step size into what is added to its logarithm."""
        for s, value in self._moved:
            s.copy_(value * torch.exp(s - value))
