"""Your own network, quantizer and training loop, recorded: the three lines that are marked are all that is added.

    python examples/record_your_own_loop.py                        # a quantizer written here
    python examples/record_your_own_loop.py --library brevitas     # pip install brevitas

Nothing else of oscillab is used. The recording goes into a file, from which every table and figure can be drawn later.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import parametrize

import oscillab  # 1 of 3


class Rounding(nn.Module):
    """A quantizer as many people write it: a learned step size, 3 bits, straight-through gradient."""

    bits = 3  # optional: lets the report know how many states there are

    def __init__(self, weight):
        super().__init__()
        self.scale = nn.Parameter(2 * weight.detach().abs().mean() / 3**0.5)

    def forward(self, weight):
        """Return the weight rounded to its grid."""
        position = (weight / self.scale).clamp(-4, 3)
        return self.scale * (position + (position.round() - position).detach())


def own_network():
    """Return a small convolutional network with parametrized weights."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4),
    )  # fmt: skip
    for layer in (model[0], model[3], model[8]):
        parametrize.register_parametrization(layer, "weight", Rounding(layer.weight))
    return model


def brevitas_network():
    """Return the same network in Brevitas, inputs of the inner layers quantized to 4 bits."""
    from brevitas import nn as quantized
    from brevitas.quant import Int8ActPerTensorFloat as Activation

    inner = {"weight_bit_width": 3, "input_quant": Activation, "input_bit_width": 4}
    return nn.Sequential(
        quantized.QuantConv2d(1, 16, 3, weight_bit_width=3), nn.BatchNorm2d(16), nn.ReLU(),
        quantized.QuantConv2d(16, 16, 3, **inner), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), quantized.QuantLinear(64, 4, bias=True, **inner),
    )  # fmt: skip


def noisy_patterns(count, generator):
    """Return pictures (count, 1, 12, 12) of four fixed patterns under noise, and which pattern each is."""
    patterns = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(4, (count,), generator=generator)
    return patterns[labels] + 1.5 * torch.randn(count, 1, 12, 12, generator=generator), labels


def train(model, path, *, steps=200):
    """Return the recording of `steps` steps of training, also written to `path`."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    with oscillab.record(oscillab.adapt(model), optimizer) as recorder:  # 2 of 3
        for _ in range(steps):
            images, labels = noisy_patterns(64, generator)
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    recorder.recording().save(path)  # 3 of 3
    return recorder.recording()


def report(recording):
    """Return the text of a report, one line per layer."""
    columns = ["layer", "bits", "weight_count", "flip_rate", "oscillating_share", "near_edge_share", "saturated_share"]
    return oscillab.tables.layers(recording)[columns].to_string(index=False, float_format="{:.3f}".format)


def main(arguments=None):
    """Train, record, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=("own", "brevitas"), default="own", help="whose quantizers to use")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps")
    parser.add_argument("--out", type=Path, default=Path("own_loop.npz"), help="the recording to write")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    model = brevitas_network() if options.library == "brevitas" else own_network()
    print(report(train(model, options.out, steps=options.steps)))  # noqa: T201
    return options.out


if __name__ == "__main__":
    main()
