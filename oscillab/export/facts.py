"""What does an ONNX file say of the detector in it?

Plain text entries of the file's metadata: whoever has the file and nothing else knows the classes, the anchors, the image
size, and how many bits each layer has where the type that stores it has more.
"""

import json
from dataclasses import asdict, dataclass

FORMAT, VERSION = "oscillab", 1
OPSETS = range(21, 28)  # 21 is the first with 4-bit integers, 27 the last that onnxruntime 1.32 runs
SCALES = ("per_channel", "per_tensor", "float")
FORMS = ("exact", "qdq")


@dataclass(frozen=True)
class Facts:
    """The entries of the metadata."""

    name: str  # of the model, as the zoo has it
    task: str  # detect or segment
    names: list[str]  # of the classes
    strides: list[int]  # pixels per cell of each level
    anchors: list  # (levels, anchors, 2) in pixels
    size: int | None  # side of the square images in pixels; None: any multiple of the largest stride
    scales: str  # per_channel or per_tensor; float for a network that is not quantized
    bits: dict[str, int]  # of the weights and of the input of each quantized layer
    storage: str  # what lies in which type, in words
    form: str = "qdq"  # whether convolutions sum integer states (exact) or their values; files of before have no entry

    def entries(self):
        """The metadata as a dictionary of texts."""
        own = {key: value if isinstance(value, str) else json.dumps(value) for key, value in asdict(self).items()}
        return {"format": FORMAT, "version": str(VERSION), **own}


# What each entry is
KINDS = {"name": str, "task": str, "names": list, "strides": list, "anchors": list, "size": int | None}
KINDS |= {"scales": str, "bits": dict, "storage": str}


def read_facts(entries):
    """The `Facts` in metadata, a dictionary of texts; raises ValueError that says what is missing or wrong."""
    if entries.get("format") != FORMAT:
        raise ValueError("it was not written by oscillab, its metadata lacks format=oscillab")
    missing = [key for key in ("version", *KINDS) if key not in entries]
    if missing:
        raise ValueError(f"its metadata lacks {', '.join(missing)}")
    version = read_entry("version", entries["version"], int)
    if version > VERSION:
        raise ValueError(f"it was written by a newer oscillab (format {version}, this one reads up to {VERSION})")
    values = {key: read_entry(key, entries[key], kind) for key, kind in KINDS.items()}
    return Facts(**values, form=entries.get("form", "qdq"))


def read_entry(key, text, kind):
    """The value of a metadata entry, of that type; raises ValueError where the text holds none."""
    if kind is str:
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = NotImplemented  # of no kind
    if not isinstance(value, kind):
        raise ValueError(f"its metadata cannot be read: {key} is {text[:40]!r}")
    return value


def storage_in_words(bits, scales="per_channel"):
    """What lies in which type, for the bits of each layer.

    >>> storage_in_words({"a": 8, "b": 3})
    '3-bit states are stored in 4-bit integers; 8-bit states in 8-bit integers'
    """
    if scales == "float":
        return "weights are 32-bit floats"
    stored = {width: 4 if width <= 4 else 8 for width in sorted(set(bits.values()))}
    first, *rest = (f"{width}-bit states {{}}in {held}-bit integers" for width, held in stored.items())
    fixed = ["multipliers in 16-bit and biases in 32-bit integers"] * (scales == "per_tensor")
    return "; ".join([first.format("are stored "), *(text.format("") for text in rest), *fixed])
