"""Step sizes in the log domain: the optimizer that trains their logarithms themselves."""

import copy

import torch

from oscillab.quant import quant_layers
from oscillab.train.remedies.relative import RelativeStepSizes


def test_the_logarithm_is_what_moves(quantized):
    """Oracle: Adam on log(s) itself, with the gradients s * dL/ds, over three steps; other parameters as without."""
    model, plain = quantized, copy.deepcopy(quantized)
    grids = [grid for layer in quant_layers(model).values() for grid in (layer.weight_quantizer, layer.input_quantizer)]
    logs = [grid.step_size.detach().log().requires_grad_() for grid in grids]
    mine, theirs, same = (
        torch.optim.Adam(parameters, lr=0.05) for parameters in (model.parameters(), logs, plain.parameters())
    )
    generator = torch.Generator().manual_seed(0)
    with RelativeStepSizes(model, mine, total_steps=3):
        for _ in range(3):
            for p, other in zip(model.parameters(), plain.parameters(), strict=True):
                p.grad = torch.randn(p.shape, generator=generator)
                other.grad = p.grad.clone()
            for grid, log in zip(grids, logs, strict=True):
                log.grad = grid.step_size.grad * log.detach().exp()
            for optimizer in (mine, theirs, same):
                optimizer.step()
    for grid, log in zip(grids, logs, strict=True):
        torch.testing.assert_close(grid.step_size.detach(), log.detach().exp())
    own = {id(grid.step_size) for grid in grids}
    pairs = zip(model.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(p, other) for p, other in pairs if id(p) not in own)
