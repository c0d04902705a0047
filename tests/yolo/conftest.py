"""What the tests of the detectors share: the rule that filled the recorded oracles, and archives made by hand."""

import importlib.util
import pickle
import zipfile

import numpy as np
import pytest
import torch

from oscillab.yolo import zoo


@pytest.fixture(scope="session")
def rule(shared):
    """The module `rule.py` of the oracles: `fill`, `image`, `predictions`, `targets`."""
    spec = importlib.util.spec_from_file_location("oracle_rule", shared / "oracle" / "rule.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def filled(rule):
    """A function(name) that gives the model in eval mode with every entry but the anchors filled by the rule."""

    def make(name):
        model = zoo.build(name)
        entries = model.state_dict()
        new = {key: torch.from_numpy(np.asarray(rule.fill(key, tuple(old.shape)))) for key, old in entries.items()}
        model.load_state_dict({key: old if "anchor" in key else new[key] for key, old in entries.items()})
        return model.eval()

    return make


@pytest.fixture
def archive_of(tmp_path):
    """A function(program, **entries) that writes a .pt archive with that pickle and gives its path."""

    def write(program, *, name="given.pt", compression=zipfile.ZIP_STORED, **entries):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("given/data.pkl", program if isinstance(program, bytes) else pickle.dumps(program, 2))
            for key, content in entries.items():
                archive.writestr(
                    f"given/{key}" if key in ("byteorder", "constants.pkl") else f"given/data/{key}", content
                )
        return path

    return write
