"""What each of two processes of a test does: calibrate, take one step's gradient, train, evaluate.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python two_ranks.py FOLDER

Without WORLD_SIZE it is one process. Writes FOLDER/<count>-<rank>.pt.
"""

import logging
import os
import sys
from pathlib import Path

import torch

from oscillab.data.batches import Batches, to_pixels
from oscillab.data.evaluate import evaluate
from oscillab.data.scenes import Scenes
from oscillab.provenance import SHIPPED
from oscillab.quant import QuantSpec, quantize
from oscillab.train.callbacks import MoveEma
from oscillab.train.distributed import joined
from oscillab.train.ema import Ema
from oscillab.train.spec import TrainSpec
from oscillab.train.trainer import Trainer
from oscillab.yolo import checkpoint
from oscillab.yolo.loss import build_loss


def batches(members):
    """Two batches, of 8 and of 5 pictures; of two processes the second gets 4 and 2."""
    return members.share(Batches(Scenes(13, split="train", size=64), size=64, batch_size=8))


def detector(members, bits):
    """The shipped detector, quantized by the leader from its own batch."""
    model = checkpoint.load(SHIPPED)
    if bits:
        pictures = to_pixels(Batches(Scenes(13, split="train", size=64), size=64, batch_size=8).batch(0, 0).images)
        quantize(model, QuantSpec(bits=bits), [pictures] if members.leader else None)
        members.with_leaders_state(model)
    return model.to(memory_format=torch.channels_last)


def gradient(members, bits, **spec):
    """The loss of the first batch and its gradient, in one tensor, and the running statistics that it leaves."""
    model = detector(members, bits)
    trainer = Trainer(model, build_loss(model), batches(members), TrainSpec(**spec), progress=False, members=members)
    trainer._set_modes()
    with trainer._ready():
        trainer._look(*trainer._add_gradients(trainer.batches.batch(0, 0)))
    statistics = torch.cat([b.flatten() for name, b in model.named_buffers() if "running" in name])
    return trainer.last_loss, torch.cat([p.grad.flatten() for p in model.parameters()]), statistics


def trained(members, bits):
    """The weights before and after four steps, the average's, and the losses."""
    model = detector(members, bits)
    spec = TrainSpec(epochs=2, learning_rate=1e-3, warmup_steps=0)
    trainer = Trainer(model, build_loss(model), batches(members), spec, progress=False, members=members)
    before, ema = {name: p.detach().clone() for name, p in model.named_parameters()}, Ema(model, decay=0.5, ramp=0)
    trainer.callbacks.append(MoveEma(ema))
    trainer.fit()
    after, average = ({name: t.clone() for name, t in m.state_dict().items()} for m in (model, ema.model))
    return {"before": before, "after": after, "average": average, "loss": trainer.last_loss}


def measured(members):
    """The evaluation of the shipped detector on 21 scenes in batches of 4."""
    result = evaluate(checkpoint.load(SHIPPED), Scenes(21, split="val", size=64), batch_size=4, members=members)
    return {
        "map": result.map,
        "images": result.image_count,
        "detections": [torch.from_numpy(d) for d in result.detections],
    }


def main(folder):
    """Write what this process found."""
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.ERROR)
    with joined(timeout=120) as members:
        content = {
            "grid": {name: t for name, t in detector(members, 4).state_dict().items() if "quantizer" in name},
            "gradient": {bits: gradient(members, bits) for bits in (0, 4)},
            "own_bn": gradient(members, 0, sync_bn=False)[1],
            "float": trained(members, 0),
            "quantized": trained(members, 4),
            "evaluation": measured(members),
        }
        torch.save(content, Path(folder) / f"{members.count}-{members.rank}.pt")
        members.wait()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads now and then abort the interpreter while it is taken down


if __name__ == "__main__":
    main(sys.argv[1])
