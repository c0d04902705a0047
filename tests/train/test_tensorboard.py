"""Scalars for TensorBoard: what is written, read back by TensorBoard itself, and what is said where it is absent."""

import sys

import pytest

from oscillab.train.spec import TrainSpec
from oscillab.train.tensorboard import TensorBoard
from oscillab.train.trainer import Callback, Trainer
from oscillab.yolo.loss import DetectionLoss

SPEC = TrainSpec(epochs=2, learning_rate=1e-3, schedule="constant", warmup_steps=0)


class Losses(Callback):
    """The loss after every step."""

    def __init__(self):
        self.values = {}

    def step_end(self, trainer):
        self.values[trainer.step] = trainer.last_loss


def test_scalars_are_what_the_run_saw(quantized, batches, tmp_path):
    """Oracle: the losses kept by hand and the rates of the spec, at every second of eight steps, in float32."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    losses = Losses()
    callbacks = [losses, TensorBoard(tmp_path / "events", every=2)]
    Trainer(quantized, DetectionLoss(quantized), batches, SPEC, callbacks=callbacks, progress=False).fit()
    events = accumulator.EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    written = {event.step: event.value for event in events.Scalars("loss/total")}
    assert written == pytest.approx({step: losses.values[step] for step in (2, 4, 6, 8)}, rel=1e-6)
    assert [event.value for event in events.Scalars("rate/step_sizes")] == pytest.approx([1e-3] * 4)
    assert {"loss/box", "rate/weights", "seconds/forward"} <= set(events.Tags()["scalars"])


def test_absent_tensorboard_is_one_sentence(tmp_path, monkeypatch):
    """Oracle: the sentence with the way out, before a run begins; importing the callback's file needs no TensorBoard."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"TensorBoard is not installed: pip install 'oscillab\[tensorboard\]'"):
        TensorBoard(tmp_path)
    with pytest.raises(ValueError, match="every must be at least 1 step, got 0"):
        TensorBoard(tmp_path, every=0)
