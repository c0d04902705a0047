"""Can `oscillab.record` be called, and its room imported, in either order and without torch until then?"""

import os
import subprocess
import sys

import pytest

import oscillab
from oscillab.recording.recorder import Recorder

AFTER = "import oscillab.recording.recording, oscillab; call = oscillab.record"
IMPORTED = "from oscillab import record as call"


def test_the_package_is_the_function(fakes):
    """Oracle: a recorder with the options that were given."""
    recorder = oscillab.record(fakes.Net([[0.0]]), fakes.Average(), every=3)
    assert isinstance(recorder, Recorder) and recorder.settings["every"] == 3


@pytest.mark.parametrize("start", [AFTER, IMPORTED])
def test_in_either_order(start, root):
    """Oracle: the function's own error, from a fresh Python."""
    code = f"{start}\nimport torch\ntry: call(torch.nn.Identity(), None)\nexcept ValueError as error: print(error)"
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("nothing to record")


def test_the_room_needs_no_torch(root):
    """Oracle: a fresh Python that has imported the tables has not imported torch."""
    code = "import oscillab.recording.tables, sys; print('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "False"
