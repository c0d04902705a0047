"""Register every method once: what it is called, how it is drawn, what it changes and how it is applied.

A new remedy is one object in a file of its own and one entry here (or one call of `register`): the command line, the study,
its tables and its figures take names, order, labels and colours from this table. Nothing is imported before it is applied.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any

INK = "#333333"  # of a method without a colour of its own
PALETTE = ("#56b4e9", "#ca9161", "#fbafe4", "#ece133", "#332288", "#117733", "#882255", "#44aa99")  # of no method below
DASHES, MARKERS = ("solid", "dashed", "dotted", "dashdot"), ("o", "s", "^", "D", "v", "P")
KINDS = ("untrained", "training", "average", "control", "combination", "unknown")


@dataclass(frozen=True)
class Method:
    """One method: a way to train, a passive average beside training, a control after it, or several, joined by +."""

    name: str
    label: str
    kind: str = "unknown"
    color: str = INK
    dash: str | tuple[int, tuple[int, ...]] = "solid"
    marker: str = "o"
    main: bool = False
    """whether it stands in the figures and tables of mAP by method"""
    applied: str | None = None
    """what applies it, "module:name": a `Remedy`, called with (model, optimizer, total steps); for an average an `Ema`, called
    with (model, total steps, decay=, ramp=, horizon=); for a control a function of (model, batches, spec=, choices=, progress=)"""
    options: Mapping[str, Any] = field(default_factory=dict)
    """keyword arguments of `applied`"""
    quant: Mapping[str, Any] = field(default_factory=dict)
    """fields of the `QuantSpec` that it changes"""
    train: Mapping[str, Any] = field(default_factory=dict)
    """fields of the `TrainSpec` that it changes"""
    starts: tuple[str, ...] = ("lsq", "ema")
    """the networks that a study measures a control on"""
    exact: bool = True
    """whether the network is measured in its exact form; False where hooks are the method"""

    def apply(self, *arguments: Any, **options: Any) -> Any:
        """Call what `applied` names; raises ValueError for a method that is not applied by a call."""
        if not self.applied:
            raise ValueError(f"{self.name} is not applied by a call: it changes fields of QuantSpec or TrainSpec")
        return resolve_name(self.applied)(*arguments, **{**self.options, **options})

    def line(self, **more: Any) -> dict[str, Any]:
        """Return keyword arguments for a matplotlib line of this method."""
        return {"color": self.color, "linestyle": self.dash, "label": self.label, "linewidth": 1.6} | more

    def points(self, **more: Any) -> dict[str, Any]:
        """Return keyword arguments for matplotlib points of this method."""
        return {"color": self.color, "marker": self.marker, "linestyle": "none"} | more


METHODS: dict[str, Method] = {}
_UNKNOWN: dict[str, Method] = {}


def register(*methods: Method) -> None:
    """Add methods to the table; raises ValueError for a name that is taken or a kind that is not one of `KINDS`."""
    for one in methods:
        if one.name in METHODS or one.kind not in KINDS:
            given = f"got {one.name!r}, {one.kind!r}"
            raise ValueError(f"a method needs a new name and a kind of {', '.join(KINDS)}, {given}")
        METHODS[one.name] = one


def names(kind: str) -> tuple[str, ...]:
    """Return the names of all methods of a kind, in the table's order."""
    return tuple(name for name, one in METHODS.items() if one.kind == kind)


def remedies() -> tuple[str, ...]:
    """Return the names of all methods that act beside the optimizer, in the table's order: what `qat --remedy` takes."""
    return tuple(name for name in names("training") if METHODS[name].applied and name != "lsq")


def method(name: str) -> Method:
    """Return the method of that name; an unknown one has a colour and a dash of its own, and its name as its label.

    >>> method("ema+qc").label, method("dampening+qc").label, method("ema+bn_affine").label, method("my run").label
    ('EMA+QC', 'Dampening+QC', 'EMA+BN affine', 'my run')
    """
    if name in METHODS:
        return METHODS[name]
    if all(word in METHODS for word in name.split("+")):
        return Method(name, "+".join(METHODS[word].label for word in name.split("+")), "combination")
    count = len(_UNKNOWN)
    look: dict[str, Any] = {"color": PALETTE[count % 8], "dash": DASHES[(count + count // 8) % 4]}
    return _UNKNOWN.setdefault(name, Method(name, name, marker=MARKERS[count % 6], **look))


EMA, ACT, LATE = "oscillab.train.ema:Ema.for_steps", "oscillab.train.remedies", "oscillab.study.ablation"
register(  # in the order of every figure, table and option
    Method("fp32", "FP32", "untrained", "#7f7f7f", marker="", main=True),
    Method("ptq", "PTQ", "untrained", "#949494", (0, (1, 1)), "x", True),
    Method("lsq", "LSQ", "training", "#0173b2", "solid", "o", True, f"{ACT}:Remedy"),
    Method("dampening", "Dampening", "training", "#cc78bc", (0, (5, 1)), "v", True, f"{ACT}.dampening:Dampening"),
    Method("freezing", "Freezing", "training", "#8c5a2b", (0, (3, 1, 1, 1)), "P", True, f"{ACT}.freezing:Freezing"),
    Method("relative_step_sizes", "Relative step sizes", "training", applied=f"{ACT}.relative:RelativeStepSizes"),
    Method("scale_freezing", "Scale freezing", "training", applied=f"{LATE}:ScaleFreezing"),
    Method("q_ema", "Q-EMA", "training", applied=f"{LATE}:QEma"),
    Method("per_channel", "Per-channel LSQ", "training", quant={"weight_granularity": "per_channel"}),
    Method("lsq_plus", "LSQ+ offset", "training", quant={"activation": "affine"}),
    Method("rounded_mask", "Rounded mask", "training", quant={"gradient_mask": "rounded"}),
    Method("slow_step_sizes", "Slow step sizes", "training", train={"step_size_rate": 0.1}),
    Method("ema", "EMA", "average", "#de8f05", "dashed", "s", True, EMA),
    *(
        Method(f"ema_{n}", f"EMA {n} %", "average", applied=EMA, options={"horizon": n / 100})
        for n in (1, 2, 5, 10, 25)
    ),
    Method("ema_weights", "EMA of weights", "average", applied=EMA, options={"parts": ("weights",)}),
    Method("ema_step_sizes", "EMA of step sizes", "average", applied=EMA, options={"parts": ("step_sizes",)}),
    Method("ema_buffers", "EMA of BN statistics", "average", applied=EMA, options={"parts": ("buffers",)}),
)
for _name, _label, _function, _options in (
    ("qc", "QC", "qc", {}),
    ("qc_scale", "QC scale only", "qc", {"parts": ("scale",)}),
    ("qc_shift", "QC shift only", "qc", {"parts": ("shift",)}),
    ("qc_per_tensor", "QC per tensor", "qc", {"granularity": "per_tensor"}),
    ("bn_affine", "BN affine", "bn_affine", {}),
    ("bn_affine_and_biases", "BN affine, biases", "bn_affine", {"biases": True}),
    ("bn_reestimation", "BN re-estimation", "bn_reestimation", {}),
    ("bias_correction", "bias correction", "bias_correction", {}),
):
    _how: dict[str, Any] = {"applied": f"{ACT}.controls:{_function}", "options": _options}
    _how["starts"] = ("ema",) if _options else ("lsq", "ema")  # variants on EMA alone, as in the paper
    register(Method(_name, _label, "control", **_how))
register(
    Method("soft_rounding", "soft rounding", "control", applied=f"{ACT}.controls:soften", exact=False),
    Method("lsq+qc", "LSQ+QC", "combination", "#029e73", "dotted", "^", main=True),
    Method("ema+qc", "EMA+QC", "combination", "#d55e00", "dashdot", "D", main=True),
)
