"""What the tests of the export share: small trained and calibrated detectors, their files, and one-layer graphs."""

import copy
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from oscillab.data.batches import Batches, to_pixels
from oscillab.data.scenes import Scenes
from oscillab.export.graph import Graph
from oscillab.export.reader import open_session
from oscillab.export.write import export_onnx
from oscillab.provenance import SHIPPED
from oscillab.quant import QuantSpec, quantize
from oscillab.quant.fold import fold
from oscillab.recording.recorder import record
from oscillab.train.config import TrainSpec
from oscillab.train.correction import correct
from oscillab.train.trainer import Trainer, seed_everything
from oscillab.yolo import checkpoint, zoo
from oscillab.yolo.loss import build_loss

STEPS = {4: 24, 3: 64}  # of training; 3 bits need more of it before anything is found


def training(count, batch_size=8):
    """Batches of 64-pixel scenes."""
    return Batches(Scenes(count, split="train", size=64), size=64, batch_size=batch_size)


@pytest.fixture(scope="session")
def images():
    """Four held-out scenes of 96 pixels as floats in 0..1, (4, 3, 96, 96)."""
    scenes = Scenes(4, split="val", size=96)
    pictures = np.stack([scenes.sample(i).image for i in range(4)])
    return to_pixels(torch.from_numpy(pictures).permute(0, 3, 1, 2)).contiguous()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """`trained(bits)`: the shipped detector after a short QAT under a recorder and a short, folded QC, and its file.

    Attributes: `recorded` (the network that the recording ends with), `recording`, `model` (with QC folded), `path`.
    """
    return lru_cache(lambda bits: train(bits, tmp_path_factory.mktemp(f"bits{bits}")))


def train(bits, folder):
    """What `trained` gives, made."""
    seed_everything(0)
    batches = training(8 * STEPS[bits])
    model = quantize(checkpoint.load(SHIPPED), QuantSpec(bits=bits), [to_pixels(batches.batch(0, 0).images)])
    spec = TrainSpec(learning_rate=1e-3, schedule="constant", warmup_steps=6)
    trainer = Trainer(model, build_loss(model), batches, spec, progress=False)
    with record(model, trainer.optimizer) as recorder:
        trainer.fit()
        recording = recorder.recording()
    recorded = copy.deepcopy(model).eval()
    qc = TrainSpec(learning_rate=5e-3, schedule="constant", warmup_steps=0)
    model = fold(correct(model, training(64), spec=qc, progress=False))
    path = folder / "model.onnx"
    export_onnx(model, path)
    return SimpleNamespace(recorded=recorded, recording=recording, model=model, path=path)


@pytest.fixture(scope="session")
def calibrated(images):
    """`calibrated(name, **spec)`: a new detector of 10 classes, the statistics of its BatchNorms taken from four scenes."""

    def make(name, **spec):
        torch.manual_seed(0)
        model = zoo.build(name, classes=10).train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            model(images)
        return quantize(model.eval(), QuantSpec(**spec), [images]) if spec else model.eval()

    return make


@pytest.fixture
def run_graph():
    """`run_graph(emit, x)`: what the graph gives that `emit(graph, "images")` adds its nodes to, and its operators."""

    def run(emit, x, *, outputs=("y",)):
        graph = Graph()
        given = emit(graph, "images")
        graph.add("Identity", [given], output="y")
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        proto = graph.finish("test", [helper.make_tensor_value_info("images", TensorProto.FLOAT, x.shape)], infos)
        model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        values = open_session(model, "test").run(None, {"images": x.numpy()})
        operators = [node.op_type for node in graph.nodes]
        return (torch.from_numpy(values[0]) if len(values) == 1 else values), operators

    return run


@pytest.fixture
def outputs_of():
    """`outputs_of(path, images)`: what plain onnxruntime at its defaults makes of a file, a list of tensors."""

    def run(path, images):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return [torch.from_numpy(array) for array in session.run(None, {"images": images.numpy()})]

    return run
