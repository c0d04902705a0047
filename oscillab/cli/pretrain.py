"""The command `pretrain`: train a float detector, and measure it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from oscillab.cli.train import FloatSpec, check_free, measure, next_command
from oscillab.data.options import DataOptions, DataSource, chosen_size
from oscillab.io import write_json
from oscillab.train.config import RunOptions, has_bfloat16


@dataclass(frozen=True)
class Pretrain:
    """Train a float detector, from scratch or from what another one has learned."""

    model: str = "yolov5n"
    """a name of the zoo, see `oscillab models`"""
    out: Path = Path("runs/yolov5n.pt")
    """the checkpoint to write; <out>.json beside it says how it was made"""
    train: FloatSpec = field(
        default_factory=lambda: FloatSpec(epochs=48, learning_rate=3e-3, autocast=has_bfloat16(), warmup_steps=200)
    )
    data: DataOptions = field(default_factory=lambda: DataOptions(size=0, count=2048, batch_size=32))
    run: RunOptions = field(default_factory=RunOptions)
    start: Path | None = None
    """a float checkpoint: every tensor whose name and shape match is taken from it; None: all start at random"""
    anchors: Literal["keep", "auto"] = "keep"
    """'auto' fits other anchors to the data where the present ones can answer for at most 98 % of its boxes"""
    ema_decay: float = 0.999
    """of the average that is written; its horizon 1 / (1 - decay) suits a run of at least three times as many steps"""
    resume: bool = False
    """continue from <out>.last"""
    overwrite: bool = False
    """write over a checkpoint that is there"""
    json: Path | None = None
    """also write what was measured to this file"""


def pretrain(options: Pretrain) -> dict[str, Any]:
    """Train a detector, write it to `options.out` and return its measured mAP."""
    from oscillab.provenance import provenance
    from oscillab.train.run import placed, prepare, run_pretraining
    from oscillab.yolo import checkpoint, zoo
    from oscillab.yolo.boxes import auto_anchor

    run, last = options.run, options.out.with_suffix(".last")
    check_free([options.out], options)
    prepare(run)
    data = replace(options.data, size=chosen_size(options.data.size, options.data.data))
    source, masks = DataSource(data), options.model.endswith("-seg")
    batches = source.training_batches(run.seed, masks=masks)
    names = batches.dataset.names
    model = zoo.build(options.model, classes=len(names), names=names)
    placed(model, run.device)
    model.size = data.size
    taken = checkpoint.load_matching_weights(model, options.start) if options.start else 0
    recall = auto_anchor(model, batches.dataset, data.size, choice=options.anchors, seed=run.seed)
    how: dict[str, Any] = {"ema_decay": options.ema_decay, "progress": run.progress, "resume": options.resume}
    trained = run_pretraining(model, batches, options.train, options.out, **how)
    if trained.get("interrupted"):
        return trained
    average = placed(checkpoint.load(options.out), run.device)
    measured = measure(average, source.held_out(masks=masks), run, options.model)
    measured |= {"tensors_taken": taken, "anchor_recall": recall, "seconds": trained["seconds"]}
    write_json(options.out.with_suffix(".json"), provenance(options, device=run.device, **measured))
    last.unlink(missing_ok=True)
    return measured | {"out": str(options.out), "next": next_command("qat", "--weights", options.out, data=data)}
