"""Laws of what is recorded and kept, whatever is done in a loop: properties, by hypothesis. Oracle: states that the test reads."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from oscillab.quant import QuantSpec, quant_layers, quantize
from oscillab.recording.recorder import record
from oscillab.recording.recording import Recording
from oscillab.recording.tables import count_oscillations
from oscillab.yolo.checkpoint import halved

SPECS = st.builds(
    QuantSpec,
    bits=st.sampled_from([2, 3, 4]),
    first_last_bits=st.sampled_from([3, 8]),
    weight_granularity=st.sampled_from(["per_tensor", "per_channel"]),
)


class Wrapper:
    """Around an optimizer or another wrapper, as accelerate's and others' are."""

    def __init__(self, optimizer):
        self.optimizer, self.step = optimizer, optimizer.step


def net_of(spec, seed=0):
    """A quantized network of three convolutions that trains."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.SiLU(), nn.Conv2d(3, 3, 1), nn.SiLU(), nn.Conv2d(3, 2, 2))
    return quantize(net, spec, [torch.rand(2, 2, 5, 5)]).train()


def states_of(net):
    """The integer states of all weights, (weights,) int8."""
    return np.concatenate([layer.integer_state().flatten().numpy() for layer in quant_layers(net).values()])


def optimizers(net, kind, split):
    """The recorded optimizer and another. `split`: by groups, or so that the other has the step sizes and a layer."""
    parameters = dict(net.named_parameters())
    theirs = [p for name, p in parameters.items() if "step_size" in name or name.startswith("4.")]
    own = list(parameters.values()) if split != "others" else [parameters["0.weight"], parameters["2.weight"]]
    groups = [{"params": [p], "lr": 0.1 * (i + 1)} for i, p in enumerate(own)] if split == "groups" else own
    made = {
        "sgd": lambda: torch.optim.SGD(groups, lr=0.3, momentum=0.5),
        "fused": lambda: torch.optim.SGD(groups, lr=0.3, fused=True),
        "adam": lambda: torch.optim.Adam(groups, lr=0.05),
        "adamw": lambda: torch.optim.AdamW(groups, lr=0.05, fused=True),
    }
    return made[kind](), torch.optim.SGD(theirs, lr=0.2)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    acts=st.lists(st.sampled_from(["step", "step", "skip", "other", "half", "accumulate", "swap"]), max_size=14),
    kind=st.sampled_from(["sgd", "fused", "adam", "adamw"]),
    split=st.sampled_from(["one", "groups", "others"]),
    wrappers=st.integers(0, 2),
    spec=SPECS,
)
def test_recorded_flips_are_those_by_hand(acts, kind, split, wrappers, spec):
    """Flips and oscillations recorded are those from one update of the recorded optimizer to the next, weight by weight;
    unseen ones those that were there when it began a step, or at the end. Without any, they are all flips there were.
    """
    net, generator = net_of(spec), torch.Generator().manual_seed(len(acts))
    own, other = optimizers(net, kind, split)
    wrapper = own
    for _ in range(wrappers):
        wrapper = Wrapper(wrapper)
    seen, unseen, every = [states_of(net)], 0, 0
    weights = [layer.weight for layer in quant_layers(net).values()]
    with record(net, wrapper) as recorder:
        for act in acts:
            before = states_of(net)
            for parameter in net.parameters():
                gradient = torch.randn(parameter.shape, generator=generator) * (0.01 if parameter.ndim < 2 else 1)
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            if act == "step":
                wrapper.step()
                unseen += int((before != seen[-1]).sum())
                seen.append(states_of(net))
            elif act == "skip" and kind in ("fused", "adamw"):  # as torch.amp.GradScaler does: a call, and no update
                own.grad_scale, own.found_inf = torch.tensor(1.0), torch.tensor(1.0)
                wrapper.step()
                del own.grad_scale, own.found_inf
            elif act == "other":
                other.step()
            elif act == "half":
                with torch.no_grad():
                    weights[0].add_(weights[0].grad, alpha=0.2)
            elif act == "swap":  # an average's weights are put in for an evaluation, and taken out again
                kept = [weight.detach().clone() for weight in weights]
                with torch.no_grad():
                    [weight.neg_() for weight in weights]
                    [weight.copy_(one) for weight, one in zip(weights, kept, strict=True)]
            if act != "accumulate":
                net.zero_grad()
            every += int((states_of(net) != before).sum())
    unseen += int((states_of(net) != seen[-1]).sum())
    recording, flips = recorder.recording(), np.diff(np.stack(seen).astype(int), axis=0) != 0
    counted, ends = count_oscillations(np.stack(seen)), np.cumsum(recording.weight_counts)
    np.testing.assert_array_equal(recording["flip_count"], flips.sum(0))
    np.testing.assert_array_equal(recording["oscillation_count"], counted.totals)
    np.testing.assert_array_equal(recording["frequency"], counted.frequency)
    per_layer = [part.sum(1) for part in np.split(flips, ends[:-1], axis=1)]
    np.testing.assert_array_equal(recording["layer_flip_count"][1:].T, per_layer)
    assert recording.meta["unseen_flip_count"] == unseen and recording.meta["step_count"] == acts.count("step")
    assert unseen > 0 or flips.sum() == every


@settings(max_examples=40, deadline=None, derandomize=True)
@given(spec=SPECS, seed=st.integers(0, 99), scale=st.sampled_from([1e-4, 0.03, 1.0, 300.0]), half=st.booleans())
def test_what_is_kept_keeps_every_state(spec, seed, scale, half, tmp_path_factory):
    """A network's file, in half precision too, gives its states; a recording's file gives the recording's."""
    net = net_of(spec, seed)
    with torch.no_grad():
        for layer in quant_layers(net).values():
            layer.weight.mul_(scale)
            layer.weight_quantizer.scale_steps(torch.full((layer.out_channels,), scale))
            edges = (layer.integer_state() + 0.49999) * layer.weight_step_size().view(-1, 1, 1, 1)
            layer.weight.view(-1)[::2] = edges.view(-1)[::2]
    states, file, other = states_of(net), io.BytesIO(), net_of(spec, seed + 1)
    torch.save(halved(net) if half else net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    np.testing.assert_array_equal(states_of(other), states)
    with record(net, torch.optim.SGD(net.parameters(), lr=0.1)) as recorder:
        pass
    path = tmp_path_factory.mktemp("kept") / "run.npz"
    np.testing.assert_array_equal(Recording.open(recorder.recording().save(path))["integer_state"], states)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_other_types_are_recorded(dtype):
    """A network in another type as a whole: states by the type's own arithmetic, every flip of six steps."""
    net = net_of(QuantSpec(bits=3)).to(dtype)
    weights, seen = [layer.weight for layer in quant_layers(net).values()], [states_of(net)]
    optimizer, generator = torch.optim.SGD(weights, lr=0.2), torch.Generator().manual_seed(0)
    with record(net, optimizer) as recorder:
        for _ in range(6):
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=generator).to(dtype)
            optimizer.step()
            seen.append(states_of(net))
    flips = (np.diff(np.stack(seen).astype(int), axis=0) != 0).sum(0)
    np.testing.assert_array_equal(recorder.recording()["flip_count"], flips)
    assert flips.sum() > 10
