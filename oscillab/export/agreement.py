"""Does the file compute what the torch model computes, down to the integer states of the activations?

A file of exact form is compared with the model's exact form: nothing should differ before the boxes are decoded. In any other,
two programs round sums differently in the last digit. Next to a bin edge that is enough to give a value another state,
which is a whole step, and every later layer sees it. So the comparison holds the states: each torch layer gets the states
that the file gave, layer by layer, and what is left is rounding alone. States that differ, and those that could
(nearer than `NEAR` to an edge), are counted.
"""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from onnx import TensorProto, helper

from oscillab.quant import eval_mode, quant_layers
from oscillab.quant.exact import ExactConv2d, States, exact

from .predictor import open_session
from .reading import facts_of, read

NEAR = 1e-4  # in steps


@dataclass(frozen=True)
class Agreement:
    """How far a file and its torch model agree on some images."""

    state_count: int  # integer states of inputs that were compared, all layers together
    near_edge_share: float  # of the states whose x / s is nearer than 1e-4 to a bin edge, in 0..1
    differing_share: float  # of the states that differ
    differing_elsewhere_count: int  # of those that differ though no edge is near
    raw_difference: float  # largest difference of the raw outputs (before decoding) and the prototypes, states held
    free_raw_share: float  # of these outputs that differ by more than 1e-4 where nothing is held, in 0..1


def compare(model, path, images):
    """The `Agreement` of a quantized `Detector` in eval mode, QC folded, with its file at `path` on `images` (N, 3, H, W)."""
    layers = list(quant_layers(model))
    model = exact(model) if facts_of(read(path), path).form == "exact" else model
    outputs = [*(f"raw.{level}" for level in range(len(model.strides))), *["prototypes"] * (model.task == "segment")]
    names = [f"{name}.input" for name in layers] + outputs
    seen = dict(zip(names, probe(path, names).run(names, {"images": images.numpy()}), strict=True))
    given = [torch.from_numpy(seen[name]) for name in outputs]
    counts = np.zeros(4, np.int64)  # all, near an edge, differing, differing elsewhere
    with torch.no_grad(), raw_outputs(model):
        free = raw_of(model(images))
        with ExitStack() as stack:
            for name in layers:
                layer = model.get_submodule(name)
                grid = layer.states if isinstance(layer, ExactConv2d) else layer.input_quantizer
                hook = held(grid, torch.from_numpy(seen[f"{name}.input"]), counts)
                stack.callback(grid.register_forward_hook(hook).remove)
            with_held = raw_of(model(images))
    difference = max(float((a - b).abs().max()) for a, b in zip(given, with_held, strict=True))
    apart = torch.cat([((a - b).abs() > 1e-4).flatten() for a, b in zip(given, free, strict=True)])
    shares = (counts[1:3] / max(counts[0], 1)).tolist()
    return Agreement(int(counts[0]), *shares, int(counts[3]), difference, float(apart.float().mean()))


def held(grid, values, counts):
    """A forward hook of a `Quantizer`, or of `States`, that counts how it differs from `values`, and gives `values` on."""

    def hook(module, inputs, output):
        if isinstance(grid, States):
            position, mine, theirs = inputs[0] / grid.step_size, output, values
        else:
            offset = 0.0 if grid.offset is None else grid.offset
            position, mine, theirs = ((y - offset) / grid.positive_step_size() for y in (inputs[0], output, values))
            mine, theirs = mine.round(), theirs.round()
        edge = (position - 0.5).round().clamp(grid.low, grid.high - 1) + 0.5  # the nearest of those that there are
        near, differing = (position - edge).abs() < NEAR, mine != theirs
        counts[:] += [near.numel(), int(near.sum()), int(differing.sum()), int((differing & ~near).sum())]
        return values

    return hook


@contextmanager
def raw_outputs(model):
    """Within the block the model, otherwise in eval mode, gives its head's raw outputs."""
    with eval_mode(model):
        model.head.training = True  # this module's flag alone: what is below it stays in eval mode
        yield


def raw_of(output):
    """The raw outputs of each level, (N, A·(5 + C [+ 32]), H, W), and the prototypes, of a detector in train mode."""
    raw, rest = (output[0], list(output[1:])) if isinstance(output, tuple) else (output, [])
    return [x.permute(0, 1, 4, 2, 3).flatten(1, 2) for x in raw] + rest


def probe(path, names):
    """An onnxruntime session of the file that gives the values called `names` besides its outputs."""
    proto = read(path)
    known = {output.name for output in proto.graph.output}
    proto.graph.output.extend(
        helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names if n not in known
    )
    return open_session(proto, path)
