"""How is an exported file run with the same call as the torch model?"""

from pathlib import Path

import onnxruntime
import torch
from torch import nn

from oscillab.yolo.checkpoint import load
from oscillab.yolo.graph import check_image_size

from .reading import facts_of, read


class Predictor(nn.Module):
    """A detector in an ONNX file, with a `Detector`'s call and attributes in eval mode; it runs in onnxruntime, on the CPU."""

    def __init__(self, proto, facts, *, path, threads=None):
        super().__init__()
        self.facts, self.path = facts, str(path)
        self.name, self.task, self.names, self.strides = facts.name, facts.task, facts.names, tuple(facts.strides)
        # A Parameter, so that whoever asks a network for its device and its precision gets an answer.
        self.anchors = nn.Parameter(torch.tensor(facts.anchors), requires_grad=False)
        self.session = open_session(proto, path, threads)
        self.width = proto.graph.output[0].type.tensor_type.shape.dim[2].dim_value  # of a row of the output
        self.eval()

    @property
    def classes(self):
        """The number of classes."""
        return len(self.names)

    @property
    def coefficients(self):
        """The number of mask coefficients of a box, 0 without masks."""
        return self.width - 5 - self.classes

    def forward(self, images):
        """What the torch model gives in eval mode for `images` (N, 3, H, W), floats in 0..1: decoded boxes, or a tuple."""
        check_image_size(images, max(self.strides))
        size, given = self.facts.size, tuple(images.shape[2:])
        if size is not None and given != (size, size):
            raise ValueError(f"{self.path} was written for images of {size}x{size} pixels, got {given[0]}x{given[1]}")
        pixels = images.detach().to("cpu", torch.float32).contiguous().numpy()
        outputs = [torch.from_numpy(array) for array in self.session.run(None, {"images": pixels})]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def extra_repr(self):
        size = "any size" if self.facts.size is None else f"{self.facts.size} pixels"
        return f"{self.name}, {self.classes} classes, {size}, {self.facts.storage}"


def load_onnx(path, *, threads=None):
    """The `Predictor` in the ONNX file at `path`, on `threads` threads (None: as many as torch has).

    Raises ValueError in one line that names the file: cut short, of another opset, not oscillab's, a tensor missing.
    """
    proto = read(path)
    return Predictor(proto, facts_of(proto, path), path=path, threads=threads)


def open_session(proto, path, threads=None):
    """The onnxruntime session of a ModelProto."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 4  # errors come as exceptions
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        raise ValueError(f"{path}: onnxruntime cannot run it: {' '.join(str(error).split()):.200}") from error


def open_detector(path):
    """Return what detects, in eval mode: an exported ONNX file as a `Predictor`, every other file as a `Detector`."""
    return load_onnx(path) if Path(path).suffix == ".onnx" else load(path)
