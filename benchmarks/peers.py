"""What do other libraries' quantizers cost in the same network? Each makes a copy of a float detector quantize.

torch's own learnable op is always there; Brevitas and torchao are the `adapters` extra and are left out, with the reason,
where they are not installed. All quantize weights and inputs of every convolution to the same bits, per tensor.
"""

import importlib

import torch
from torch import nn

from oscillab.quant import bin_limits


class LearnableConv2d(nn.Conv2d):
    """A convolution between two of torch's `_fake_quantize_learnable_per_tensor_affine`."""

    def insert(self, bits):
        """Nothing; step sizes from the weight's spread, as LSQ begins, and 0.1 for inputs."""
        self.low, self.high = bin_limits(bits)
        spread = 2 * self.weight.detach().abs().mean() / self.high**0.5
        self.weight_step = nn.Parameter(spread.reshape(1))
        self.input_step = nn.Parameter(torch.full((1,), 0.1))
        self.register_buffer("zero", torch.zeros(1))

    def forward(self, x):
        """Return the convolution of quantized inputs with quantized weights."""
        quantized = [
            torch._fake_quantize_learnable_per_tensor_affine(
                t, step, self.zero, self.low, self.high, 1 / (t.numel() * self.high) ** 0.5
            )
            for t, step in ((x, self.input_step), (self.weight, self.weight_step))
        ]
        return self._conv_forward(*quantized, self.bias)


def learnable(model, bits):
    """`model` with torch's learnable op."""
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = LearnableConv2d
            module.insert(bits)
    return model


def brevitas(model, bits):
    """`model` with Brevitas' convolutions: learned scales of weights and inputs."""
    layers, quant = importlib.import_module("brevitas.nn"), importlib.import_module("brevitas.quant")

    def made(conv):
        return layers.QuantConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            groups=conv.groups,
            bias=conv.bias is not None,
            weight_quant=quant.Int8WeightPerTensorFloat,
            weight_bit_width=bits,
            input_quant=quant.Int8ActPerTensorFloat,
            input_bit_width=bits,
        )

    return replaced(model, made)


def torchao(model, bits):
    """`model` with torchao's fake quantizers (of its pt2e flow); its scales follow the values and are not learned."""
    library = importlib.import_module("torchao.quantization.pt2e")
    low, high = bin_limits(bits)
    grid = {"quant_min": low, "quant_max": high, "dtype": torch.int8, "qscheme": torch.per_tensor_symmetric}
    fake = library.FakeQuantize.with_args(observer=library.MovingAverageMinMaxObserver, **grid)

    class Conv(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(self.input_fake(x), self.weight_fake(self.weight), self.bias)

    for module in list(model.modules()):
        if type(module) is nn.Conv2d:
            module.__class__ = Conv
            module.input_fake, module.weight_fake = fake(), fake()
    return model


def replaced(model, made):
    """`model` with every convolution replaced by `made(conv)`, its weights copied."""
    for parent in list(model.modules()):
        for name, conv in list(parent.named_children()):
            if type(conv) is nn.Conv2d:
                new = made(conv)
                new.weight.data.copy_(conv.weight.data)
                if conv.bias is not None:
                    new.bias.data.copy_(conv.bias.data)
                setattr(parent, name, new)
    return model


PEERS = {"torch's learnable op": learnable, "Brevitas": brevitas, "torchao": torchao}
