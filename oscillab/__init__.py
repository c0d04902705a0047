"""See, measure and repair what goes wrong when YOLO detectors are trained at 4 and 3 bits.

Names are looked up when they are first used, so that `import oscillab` and `oscillab.Recording.open(path)` need no torch.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "build": "oscillab.yolo.zoo",
    "load": "oscillab.yolo.files",
    "save": "oscillab.yolo.files",
    "QuantSpec": "oscillab.quant",
    "quantize": "oscillab.quant",
    "record": "oscillab.recording.recorder",
    "Recording": "oscillab.recording.recording",
    "count_oscillations": "oscillab.recording.tables",
    "Ema": "oscillab.train.ema",
    "Trainer": "oscillab.train.trainer",
    "TrainSpec": "oscillab.train.spec",
    "MoveEma": "oscillab.train.callbacks",
    "DetectionLoss": "oscillab.yolo.loss",
    "Batches": "oscillab.data.batches",
    "correct": "oscillab.train.correct",
    "fold": "oscillab.quant.fold",
    "evaluate": "oscillab.train.accuracy",
    "exact": "oscillab.quant.exact",
    "Scenes": "oscillab.data.scenes",
    "CocoFolder": "oscillab.data.dataset",
    "export_onnx": "oscillab.export.write",
    "load_onnx": "oscillab.export.predictor",
    "seed_everything": "oscillab.train.trainer",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    """The public object of that name, imported from its room on first use."""
    if name in ("plot", "show"):  # `oscillab.show.live`, as other people's notebooks have it
        return import_module("oscillab.plot")
    if name not in _HOMES:
        raise AttributeError(f"module 'oscillab' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__():
    return sorted(__all__)
