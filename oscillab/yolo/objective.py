"""Which loss trains which detector, with which gains?"""

from .loss import DetectionLoss
from .mask_loss import SegmentationLoss
from .ota import OtaLoss

# The official recipes: small networks are trained with the first, the others with the second.
SMALL = {"box": 0.05, "objectness": 1.0, "classification": 0.5}
LARGE = {"box": 0.05, "objectness": 0.7, "classification": 0.3}
SMALL_NAMES = ("yolov5n", "yolov5s", "yolov7-tiny")


def loss_for(model, **options):
    """The loss that officially trains `model`, called as `loss(outputs, targets, image_size, masks=masks)`.

    `outputs` are what the model gives in train mode; `masks` are needed where `model.task` is "segment" and ignored
    elsewhere. `options` are those of `DetectionLoss` and go before the official gains. For YOLOv7 without optimal
    transport take `DetectionLoss(model)`.
    """
    gains = SMALL if model.name.startswith(SMALL_NAMES) else LARGE
    if model.task == "segment":
        kind = SegmentationLoss
    else:
        kind = OtaLoss if model.name.startswith("yolov7") else DetectionLoss
    return kind(model, **gains | options)
