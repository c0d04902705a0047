"""Which share of a training step do the loss and its target building take?

    python -m benchmarks.losses --size 320 --batch-size 16 --objects 7 --rounds 11

Timed are the loss with its target building, on outputs cut off from the network, and its gradient with respect to them;
and the network's own forward, backward and optimizer step, which the same gradients go through. Every detector takes
one of each in turn, `rounds` times, so that a busy machine slows all alike. The share is that of the loss's medians in
their sum with the network's. Pictures are noise, objects lie anywhere; neither changes what is computed. Wall-clock
seconds.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
import tyro

from oscillab.data.batches import to_pixels
from oscillab.provenance import hardware
from oscillab.train.run import placed
from oscillab.train.trainer import parameter_groups
from oscillab.yolo import zoo
from oscillab.yolo.loss import build_loss

LIMITS = {"yolov5n": 0.05, "yolov7-tiny": 0.10}  # shares that must not be exceeded


@dataclass(frozen=True)
class Options:
    """What is measured."""

    models: tuple[str, ...] = ("yolov5n", "yolov5n-seg", "yolov7-tiny")
    """names of the zoo, each trained with its official loss"""
    size: int = 320
    """side of the pictures in pixels"""
    batch_size: int = 16
    """pictures in a step"""
    objects: int = 7
    """objects in a picture"""
    classes: int = 80
    rounds: int = 11
    """steps that are timed"""
    warmup: int = 2
    """steps before, that are not"""
    autocast: bool = False
    """convolutions in bfloat16: the network is quicker, and the loss's share larger"""
    threads: int = 1
    device: str = "cpu"
    seed: int = 0


class Steps:
    """The steps of one detector, each in its two parts: network and loss."""

    def __init__(self, name, options):
        self.options = options
        self.model = placed(zoo.build(name, classes=options.classes), options.device).train()
        self.loss = build_loss(self.model)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, 5e-4), lr=1e-4, fused=True)
        self.network, self.part = [], []  # seconds of each step

    def step(self, images, targets, masks):
        """One optimizer step: the loss is worked out on leaves, whose gradients the network then takes."""
        begin = self.now()
        with torch.autocast(self.options.device, torch.bfloat16, enabled=self.options.autocast):
            outputs = self.model(to_pixels(images, self.options.device))
        raw, prototypes = outputs if isinstance(outputs, tuple) else (outputs, None)
        tensors = [*raw, prototypes] if prototypes is not None else raw
        forward = self.now()
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        given = (leaves[:-1], leaves[-1]) if prototypes is not None else leaves
        self.loss(given, targets, self.options.size, masks=masks)[0].backward()
        loss = self.now()
        torch.autograd.backward(tensors, [leaf.grad for leaf in leaves])
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.part.append(loss - forward)
        self.network.append(self.now() - loss + forward - begin)

    def now(self):
        """Return the clock, after a GPU has done what it was given."""
        if self.options.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()


def batch(options, generator):
    """Noise pictures (uint8), targets (n, 6) of which every picture has as many, and masks: ellipses in the boxes."""
    count, size = options.batch_size * options.objects, options.size
    images = torch.randint(0, 256, (options.batch_size, 3, size, size), generator=generator, dtype=torch.uint8)
    image = torch.arange(options.batch_size).repeat_interleave(options.objects)[:, None].float()
    label = torch.randint(options.classes, (count, 1), generator=generator).float()
    side = 0.05 + 0.35 * torch.rand(count, 2, generator=generator)
    centre = side / 2 + (1 - side) * torch.rand(count, 2, generator=generator)
    pixel = (torch.arange(size) + 0.5) / size
    across = ((pixel - centre[:, :1]) / side[:, :1]).square()[:, None]
    down = ((pixel - centre[:, 1:]) / side[:, 1:]).square()[:, :, None]
    masks = (across + down < 0.25).byte()  # (count, size, size)
    return images, torch.cat((image, label, centre, side), 1).to(options.device), list(masks.split(options.objects))


def main(options):
    """Print the table, and what exceeds its limit."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    detectors = {name: Steps(name, options) for name in options.models}
    for _ in range(options.warmup + options.rounds):
        given = batch(options, generator)
        for steps in detectors.values():
            steps.step(*given)
    print(
        f"batch {options.batch_size}, {options.size} pixels, {options.objects} objects a picture, "
        f"{'bfloat16' if options.autocast else 'float32'}, n {options.rounds}, {hardware(options.device)}"
    )
    for name, steps in detectors.items():
        print(line(name, *(np.array(seconds[options.warmup :]) for seconds in (steps.part, steps.network))))


def line(name, part, network):
    """One detector's row: the medians, the share, its quartiles, and the limit where there is one."""
    share = np.median(part) / (np.median(part) + np.median(network))
    low, high = np.quantile(part / (part + network), [0.25, 0.75])
    limit = f", limit {100 * LIMITS[name]:.0f} %" if name in LIMITS else ""
    seconds = f"loss {np.median(part):.4f} s, network {np.median(network):.3f} s"
    return f"{name:12s} {seconds}, share {100 * share:.1f} % ({100 * low:.1f} .. {100 * high:.1f}){limit}"


if __name__ == "__main__":
    main(tyro.cli(Options))
