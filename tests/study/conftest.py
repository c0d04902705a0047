"""A study so small that a test can run it several times."""

from dataclasses import replace

import pytest

from oscillab.data.options import DataOptions
from oscillab.study.options import Study
from oscillab.train.options import RunOptions
from oscillab.train.spec import TrainSpec


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
