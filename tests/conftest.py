"""Settings that every test shares: one torch thread, and the folder of facts where it is present."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root():
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared():
    """The folder of recorded outputs and real images beside the project; the test is skipped where it is absent."""
    path = Path(os.environ.get("OSCILLAB_SHARED", ROOT.parent / "shared"))
    if not (path / "oracle" / "README.md").is_file():
        pytest.skip(f"the shared folder of oracles and real images is absent ({path.name} beside the project)")
    return path
