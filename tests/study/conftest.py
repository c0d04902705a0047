"""A study so small that a test can run it several times."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from oscillab.data.options import DataOptions
from oscillab.study.config import Study
from oscillab.study.table import COLUMNS
from oscillab.train.config import RunOptions, TrainSpec


@pytest.fixture
def tiny(tmp_path):
    """`tiny(**changes)`: the shipped detector at 3 bit on eight pictures of 64 pixels, 4 steps of training, 2 of QC."""

    def build(**changes):
        options = Study(
            out=tmp_path / "study",
            bits=("3",),
            train=TrainSpec(epochs=2, learning_rate=1e-3, schedule="constant", warmup_steps=1),
            data=DataOptions(size=64, count=8, held_out=4, batch_size=4),
            run=RunOptions(progress=False),
            jobs=1,
        )
        return replace(options, **changes)

    return build


@pytest.fixture(scope="session")
def make_table():
    """`make_table()`: known mAP: FP32 0.6, PTQ 0.1, LSQ 0.3, EMA 0.4, LSQ+QC 0.45, EMA+QC 0.5, plus seed / 100."""

    def build(bits=(4, 3), seeds=(0, 1), network="yolov5n"):
        scores = {"ptq": 0.1, "lsq": 0.3, "ema": 0.4, "lsq+qc": 0.45, "ema+qc": 0.5}
        none = (np.nan,) * 3
        rows = [(network, "detect", 32, 32, "none", 0, "fp32", 0, 0.6, 0.8, np.nan, np.nan, np.nan, *none, 1.0)]
        for b in bits:
            for seed in seeds:
                for m, v in scores.items():
                    how = ("none", 0) if m == "ptq" else ("constant", 500)
                    rows += [
                        (network, "detect", b, 8, *how, m, seed, v + seed / 100, 0.7, np.nan, 0.25, 0.001, *none, 9.0)
                    ]
        return pd.DataFrame(rows, columns=COLUMNS)

    return build


@pytest.fixture
def table(make_table):
    return make_table()
