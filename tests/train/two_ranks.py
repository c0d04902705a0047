"""What each of two processes of a test does: calibrate, take one step's gradient, train, evaluate.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python two_ranks.py FOLDER

Without WORLD_SIZE it is one process. Writes FOLDER/<count>-<rank>.pt.
"""

import logging
import os
import sys
from pathlib import Path

import torch
from torch import nn

from oscillab.data.batches import Batches, to_pixels
from oscillab.data.evaluate import evaluate
from oscillab.data.scenes import Scenes
from oscillab.provenance import SHIPPED
from oscillab.quant import QuantSpec, quantize
from oscillab.train import ddp
from oscillab.train.callbacks import MoveEma
from oscillab.train.config import TrainSpec
from oscillab.train.ema import Ema
from oscillab.train.trainer import Trainer, train_mode
from oscillab.yolo import checkpoint
from oscillab.yolo.loss import build_loss


class CpuSyncedBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm2d whose batch statistics in train mode are those of all processes."""

    def forward(self, x):
        return self._normalized(x) if self.training else super().forward(x)

    @torch.compiler.disable
    def _normalized(self, x):
        """`x` (N, C, H, W) normalized over N of all processes, H and W; moves the running statistics."""
        wide = x.double()  # a variance from sums of squares needs the digits
        count = wide.new_full((x.shape[1],), x.numel() / x.shape[1])  # values of a channel
        total, square, count = Sum.apply(torch.stack((wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3)), count)))
        count = count.detach()
        mean = total / count
        variance = (square / count - mean.square()).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), self.momentum)
        slope = (self.weight / (variance + self.eps).sqrt()).view(1, -1, 1, 1)
        return ((wide - mean.view(1, -1, 1, 1)) * slope + self.bias.view(1, -1, 1, 1)).to(x.dtype)


class Sum(torch.autograd.Function):
    """The sum over all processes; each one's loss depends on it, so its gradient is the sum over them as well."""

    @staticmethod
    def forward(ctx, x):
        torch.distributed.all_reduce(x := x.clone())
        return x

    @staticmethod
    def backward(ctx, grad):
        torch.distributed.all_reduce(grad := grad.clone())
        return grad


def batches(world):
    """Two batches, of 8 and of 5 pictures; of two processes the second gets 4 and 2."""
    return world.shard(Batches(Scenes(13, split="train", size=64), size=64, batch_size=8))


def detector(world, bits):
    """The shipped detector, quantized by the main process from its own batch."""
    model = checkpoint.load(SHIPPED)
    if bits:
        pictures = to_pixels(Batches(Scenes(13, split="train", size=64), size=64, batch_size=8).batch(0, 0).images)
        quantize(model, QuantSpec(bits=bits), [pictures] if world.is_main else None)
        world.broadcast_state(model)
    return model.to(memory_format=torch.channels_last)


def gradient(world, bits, **spec):
    """The loss of the first batch and its gradient, in one tensor, and the running statistics that it leaves."""
    model = detector(world, bits)
    trainer = Trainer(model, build_loss(model), batches(world), TrainSpec(**spec), progress=False, world=world)
    train_mode(model)
    with trainer.ready():
        loss, _ = trainer.backward(trainer.batches.batch(0, 0))
    statistics = torch.cat([b.flatten() for name, b in model.named_buffers() if "running" in name])
    return world.sum([loss])[0], torch.cat([p.grad.flatten() for p in model.parameters()]), statistics


def trained(world, bits):
    """The weights before and after four steps, the average's, and the losses."""
    model = detector(world, bits)
    spec = TrainSpec(epochs=2, learning_rate=1e-3, warmup_steps=0)
    trainer = Trainer(model, build_loss(model), batches(world), spec, progress=False, world=world)
    before, ema = {name: p.detach().clone() for name, p in model.named_parameters()}, Ema(model, decay=0.5, ramp=0)
    trainer.callbacks.append(MoveEma(ema))
    trainer.fit()
    after, average = ({name: t.clone() for name, t in m.state_dict().items()} for m in (model, ema.model))
    return {"before": before, "after": after, "average": average, "loss": trainer.last_loss}


def measured(world):
    """The mAP, image count and detections of the shipped detector on 21 scenes in batches of 4."""
    result = evaluate(checkpoint.load(SHIPPED), Scenes(21, split="val", size=64), batch_size=4, world=world)
    return result.map, result.image_count, [torch.from_numpy(each) for each in result.detections]


def main(folder):
    """Write what this process found."""
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.ERROR)
    ddp.SYNCED["cpu"] = CpuSyncedBatchNorm2d
    with ddp.init_distributed(timeout=120) as world:
        content = {
            "grid": {name: t for name, t in detector(world, 4).state_dict().items() if "quantizer" in name},
            "gradient": {bits: gradient(world, bits) for bits in (0, 4)},
            "own_bn": gradient(world, 0, sync_bn=False)[1],
            "float": trained(world, 0),
            "quantized": trained(world, 4),
            "evaluation": measured(world),
        }
        torch.save(content, Path(folder) / f"{world.size}-{world.rank}.pt")
        world.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads now and then abort the interpreter while it is taken down


if __name__ == "__main__":
    main(sys.argv[1])
