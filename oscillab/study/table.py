"""Read a study's table: its columns, its groups, paired tests between methods, and the paper's numbers next to ours.

A table has one row per network, task, bit width (of the inner layers, and of the first and last ones), method and seed.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from oscillab.extras import nearest
from oscillab.io import shipped
from oscillab.methods import METHODS, method
from oscillab.study.text import HEADINGS, cell, width

KEYS = ("network", "task", "bits", "ends_bits", "schedule", "steps", "method", "seed")
SCORES = ("map", "map50", "mask_map", "oscillating_share", "flip_rate")
COLUMNS = (*KEYS, *SCORES, "near_edge_share", "edge_flip_share", "step_size_spread", "seconds")
MAIN = tuple(name for name, one in METHODS.items() if one.main)  # the methods of the figures of mAP, FP32 first
QUANTIZED = MAIN[1:]
PAPER_CLAIMS = (  # (method, reference): the paper's order of methods, and what QC adds to each
    *(("ema", "lsq"), ("ema+qc", "ema"), ("ema+qc", "lsq"), ("lsq+qc", "lsq")),
    *(("ema", "dampening"), ("ema", "freezing"), ("dampening", "lsq"), ("dampening+qc", "dampening")),
    *(("freezing", "lsq"), ("freezing+qc", "freezing")),
)
AFTER_EMA = ("bn_affine", "bn_affine_and_biases", "bn_reestimation", "bias_correction", "qc_scale", "qc_shift")
QC_CONTROLS = (  # what might do as well as QC, after EMA and after LSQ
    *(("ema+qc", f"ema+{name}") for name in (*AFTER_EMA, "qc_per_tensor", "soft_rounding")),
    ("ema+qc", "per_channel+ema"),
    *(("lsq+qc", f"lsq+{name}") for name in ("bn_affine", "bn_reestimation", "bias_correction", "soft_rounding")),
    ("lsq+qc", "ema"),
)
OTHER = (("rounded_mask", "lsq"), ("rounded_mask+ema", "ema"), ("slow_step_sizes", "lsq"), ("ema", "slow_step_sizes"))
CLAIMS = (*PAPER_CLAIMS, *QC_CONTROLS, *OTHER)
CLAIM_SETS = {"all": CLAIMS, "paper": PAPER_CLAIMS, "qc controls": QC_CONTROLS}
Pairs = str | Iterable[tuple[str, str]]
PAPER = shipped("paper")
PAPER_TABLES = ("main", "baselines", "segmentation", "per_channel", "qc_parts", "soft_rounding")
PAPER_KEY = ["network", "metric", "bits", "ends_bits", "method"]


class Group(NamedTuple):
    """One network at one bit width, trained at one schedule of the learning rate for one number of steps."""

    network: str
    task: str
    bits: int
    ends_bits: int
    schedule: str
    steps: int

    @property
    def width(self) -> str:
        """Its bits as the paper writes them, such as 4*."""
        return width(self.bits, self.ends_bits)

    @property
    def title(self) -> str:
        """What a panel of a figure is called."""
        return f"{self.network}, {self.width} bit\n{self.schedule} rate, {self.steps:,} steps"

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return its rows of a study's table."""
        keep = (table["network"] == self.network) & (table["task"] == self.task)
        keep &= (table["bits"] == self.bits) & (table["ends_bits"] == self.ends_bits)
        trained = (table["schedule"] == self.schedule) & (table["steps"] == self.steps)
        return table[keep & (trained | (table["method"] == "ptq"))]


def groups(table: pd.DataFrame) -> list[Group]:
    """Return the groups of a table by network and task, most bits first.

    Raises ValueError for a table without the columns of `KEYS` and `SCORES` or without a row of a quantized main method.
    """
    if missing := [name for name in (*KEYS, *SCORES) if name not in table]:
        raise ValueError(f"the table lacks the columns {', '.join(missing)}; a study's table.csv has them")
    rows = table[table["method"].isin(QUANTIZED) & (table["method"] != "ptq")]
    if rows.empty:
        raise ValueError(f"the table has no row of a quantized method; allowed are {', '.join(QUANTIZED)}")
    found = rows[list(Group._fields)].drop_duplicates().itertuples(index=False)
    every = [
        Group(str(g.network), str(g.task), int(g.bits), int(g.ends_bits), str(g.schedule), int(g.steps)) for g in found
    ]
    return sorted(
        every, key=lambda g: (g.network, g.task, -g.bits, -g.ends_bits, g.steps, g.schedule != "official", g.schedule)
    )


def run_name(network: str, bits: int, ends_bits: int, schedule: str, training: str, seed: int, passes: int = 0) -> str:
    """Return the name of the folder that a study gives one run, such as yolov5n-4bit-ends4-constant-dampening-seed1.

    `passes`: over the data, where a study has runs of several lengths.
    """
    words = [f"{network}-{bits}bit", f"ends{ends_bits}" * (ends_bits != 8), schedule * (schedule != "official")]
    words += [f"{passes}passes" * bool(passes), training * (training != "lsq"), f"seed{seed}"]
    return "-".join(filter(None, words))


def differences(table: pd.DataFrame, group: Group, method: str, reference: str, *, score: str = "map") -> np.ndarray:
    """Return `method` minus `reference` of each seed that has both, (n,), of one group of a study's table."""
    by_seed = group.rows(table).pivot_table(index="seed", columns="method", values=score)
    if method not in by_seed or reference not in by_seed:
        return np.zeros(0)
    return (by_seed[method] - by_seed[reference]).dropna().to_numpy()


def pairs_of(pairs: Pairs) -> tuple[tuple[str, str], ...]:
    """Return the pairs (method, reference) themselves, or those of the set of that name; ValueError for an unknown one."""
    if not isinstance(pairs, str):
        return tuple(pairs)
    if pairs not in CLAIM_SETS:
        raise ValueError(f"there are no claims {pairs!r}; {nearest(pairs, CLAIM_SETS)}")
    return CLAIM_SETS[pairs]


def claims(table: pd.DataFrame, *, score: str = "map", pairs: Pairs = "all") -> pd.DataFrame:
    """Return a row for each of `pairs` (method, reference) that the table has, by network and bit width.

    `pairs`: "all", "paper" (its order of methods), "qc controls" (what might do as well as QC), or pairs of your own.
    Columns: `network`, `width`, `schedule`, `steps`, `method`, `reference`, `seeds`, `difference` and `spread` (mean
    and standard deviation over seeds, in units of mAP 0..1), `p` (two-sided t test of the paired differences; nan below
    two seeds), `holds`: "yes" or "no" where every seed agrees on the sign, else "unclear".
    """
    rows = []
    for group in groups(table):
        about = {"network": group.network, "width": group.width, "schedule": group.schedule, "steps": group.steps}
        for name, reference in pairs_of(pairs):
            gains = differences(table, group, name, reference, score=score)
            if len(gains):
                row = about | {"method": name, "reference": reference, "seeds": len(gains), "difference": gains.mean()}
                row |= {"spread": gains.std(ddof=1) if len(gains) > 1 else float("nan"), "p": paired_p(gains)}
                rows.append(row | {"holds": "yes" if all(gains > 0) else "no" if all(gains < 0) else "unclear"})
    return pd.DataFrame(rows)


def paired_p(gains: np.ndarray) -> float:
    """Return the two-sided p of Student's t test that the mean of `gains` (n,) is 0; nan below two, or without spread.

    P(|T| > t) with n - 1 degrees of freedom is the share of the area under cos(angle)^(n - 2) beyond arctan(t / sqrt(n - 1)).
    """
    count, spread = len(gains), np.std(gains, ddof=1) if len(gains) > 1 else 0.0
    if spread == 0:
        return float("nan")
    t = abs(np.mean(gains)) / (spread / count**0.5)
    angle = np.linspace(0.0, np.pi / 2, 20_001)
    density = np.cos(angle) ** (count - 2)
    beyond = density * (angle >= np.arctan(t / (count - 1) ** 0.5))
    return float(np.trapezoid(beyond, angle) / np.trapezoid(density, angle))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return a study's table as cells of text, a row per network, bit width and method: means, with the spread over seeds.

    Columns: `network`, `bits`, `schedule`, `steps`, `method` and the scores' headings, masks only where the table has
    any; rows in its own order.
    """
    masks = ["mask_map"] * ("mask_map" in table and bool(table["mask_map"].notna().any()))
    scores = ["map", "map50", *masks, "oscillating_share", "flip_rate"]
    rows = []
    for (network, *bits, schedule, steps, name), group in table.groupby(
        ["network", "bits", "ends_bits", "schedule", "steps", "method"], sort=False
    ):
        about = {"network": network, "bits": width(*bits), "schedule": schedule, "steps": steps}
        about["method"] = method(name).label
        rows.append(about | {HEADINGS[score]: spread(score, group[score]) for score in scores})
    return pd.DataFrame(rows)


def spread(name: str, values: pd.Series) -> str:
    """Return the mean as a table's cell, followed by the standard deviation where there are several values."""
    if len(values) < 2 or values.isna().any():
        return cell(name, values.iloc[0] if len(values) else None)
    return f"{cell(name, values.mean())} ± {cell(name, values.std())}"


def paper(folder: Path | str = PAPER) -> pd.DataFrame:
    """Return every number of 2311.05109, one row per network, metric ("box" or "mask"), bit width and method; mAP in percent.

    `table`, `row` and `column` name its place; the first cell counts where tables repeat it. Empty where the files are missing.
    """
    files = [Path(folder) / f"{name}.csv" for name in PAPER_TABLES]
    tables = [pd.read_csv(path) for path in files if path.is_file()]
    if not tables:
        return pd.DataFrame(columns=["table", "row", "column", *PAPER_KEY, "map_percent"])
    return pd.concat(tables).drop_duplicates(PAPER_KEY).reset_index(drop=True)


def compare_with_paper(table: pd.DataFrame, *, cells: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return a row for each method of ours that the paper has as well, at the same network and bit width.

    Columns: `network`, `metric`, `width`, `schedule`, `method`, `seeds`; `ours`, `ours_spread` (mean and standard
    deviation over seeds), `paper`, `points_apart`, `our_gain` and `paper_gain` (on LSQ): all in points of mAP, 0..100;
    `our_share` and `paper_share`, the share of FP32's mAP, 0..1. None where LSQ or FP32 is not known.
    """
    cells = paper() if cells is None else cells
    rows: list[dict[str, Any]] = []
    for group in groups(table):
        of_network = table[(table["network"] == group.network) & (table["task"] == group.task)]
        for metric, score in (("box", "map"), ("mask", "mask_map")):
            ours = 100 * group.rows(table).pivot_table(index="seed", columns="method", values=score)
            same = cells[(cells["network"] == group.network) & (cells["metric"] == metric)]
            floats = 100 * of_network.loc[of_network["method"] == "fp32", score].mean(), _percent(same, "fp32")
            same = same[(same["bits"] == group.bits) & (same["ends_bits"] == group.ends_bits)]
            about = {"network": group.network, "metric": metric, "width": group.width, "schedule": group.schedule}
            rows += [
                about | _compared(method, ours, same, floats)
                for method in QUANTIZED
                if method in ours and method in set(same["method"])
            ]
    return pd.DataFrame(rows)


def _percent(cells: pd.DataFrame, method: str) -> Any:
    return next(iter(cells.loc[cells["method"] == method, "map_percent"]), None)


def _compared(method: str, ours: pd.DataFrame, cells: pd.DataFrame, floats: tuple[Any, Any]) -> dict[str, Any]:
    """Compare one method; `ours`: seed by method in points, `cells`: the paper's, `floats`: FP32's of both."""
    mean, spread, theirs = ours[method].mean(), ours[method].std(), _percent(cells, method)
    base, their_base = ours.get("lsq"), _percent(cells, "lsq")
    row = {"method": method, "seeds": int(ours[method].count()), "ours": mean, "ours_spread": spread, "paper": theirs}
    row |= {"points_apart": mean - theirs, "our_gain": None if base is None else (ours[method] - base).mean()}
    row |= {"paper_gain": None if their_base is None else theirs - their_base}
    row |= {"our_share": None if pd.isna(floats[0]) else mean / floats[0]}
    return row | {"paper_share": None if floats[1] is None else theirs / floats[1]}
