# The public face, one import per name; `attach` reads it when the package is used. tests/test_face.py holds it to 60 names.
# Networks
from oscillab.yolo.zoo import build as build
from oscillab.yolo.checkpoint import load as load
from oscillab.yolo.checkpoint import save as save
from oscillab.yolo.boxes import fit_anchors as fit_anchors
from oscillab.yolo.loss import DetectionLoss as DetectionLoss
from oscillab.yolo.loss import build_loss as build_loss

# Quantization
from oscillab.quant.lsq import bin_limits as bin_limits
from oscillab.quant.lsq import integer_state as integer_state
from oscillab.quant.lsq import lsq as lsq
from oscillab.quant import QuantSpec as QuantSpec
from oscillab.quant import quant_layers as quant_layers
from oscillab.quant import quantize as quantize
from oscillab.quant.exact import exact as exact

# Data
from oscillab.data.batches import Batches as Batches
from oscillab.data.dataset import CocoFolder as CocoFolder
from oscillab.data.scenes import Scenes as Scenes
from oscillab.data.nms import detect as detect
from oscillab.data.evaluate import evaluate as evaluate

# Training and correcting
from oscillab.methods import method as method
from oscillab.train.callbacks import MoveEma as MoveEma
from oscillab.train.correction import correct as correct
from oscillab.quant.fold import fold as fold
from oscillab.quant.fold import insert_corrections as insert_corrections
from oscillab.train.ema import Ema as Ema
from oscillab.train.config import TrainSpec as TrainSpec
from oscillab.train.trainer import Trainer as Trainer
from oscillab.train.trainer import seed_everything as seed_everything

# Recording; what is known of a recording is in `oscillab.tables` and `oscillab.plot`
from oscillab.recording.adapters import adapt as adapt
from oscillab.recording.tables import count_oscillations as count_oscillations
from oscillab.recording.recorder import record as record
from oscillab.recording.recording import Recording as Recording

# Exporting
from oscillab.export.reader import load_onnx as load_onnx
from oscillab.export.write import export_onnx as export_onnx

# Public modules; `show` is the former name of `plot`
from oscillab import plot as plot
from oscillab import study as study
from oscillab import tables as tables
from oscillab import toy as toy

show = plot

__version__: str
