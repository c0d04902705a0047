"""The example of a user's own loop: it runs as it stands, adds three lines, and ends with a report."""

import re

import pandas as pd
import pytest

from oscillab import Recording


@pytest.fixture
def example(script):
    """The example as a module."""
    return script("examples/record_your_own_loop.py")


@pytest.mark.parametrize("library", ["own", "brevitas"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_gives_a_report(example, tmp_path, capsys, library):
    """Oracle: shapes by hand (144, 2304 and 256 weights at 3 bits, 40 steps), and weights that did flip."""
    if library == "brevitas":
        pytest.importorskip("brevitas", reason="Brevitas is not installed")
    example.main(["--library", library, "--steps", "40", "--out", str(tmp_path / "run.npz")])
    lines = capsys.readouterr().out.split("\n")
    rows = [line.split() for line in lines[1:] if line]
    assert [row[:3] for row in rows] == [["0", "3", "144"], ["3", "3", "2304"], ["8", "3", "256"]]
    recording = Recording.open(tmp_path / "run.npz")
    assert recording.steps[-1] == 40 and recording["layer_flip_count"].sum(0).min() > 0
    rates = recording["layer_flip_count"].sum(0) / recording.weight_counts / 40
    printed = pd.to_numeric(pd.Series([row[3] for row in rows]))
    assert printed.tolist() == pytest.approx(rates.tolist(), abs=5e-4)


def test_three_lines_are_added(root):
    """Oracle: the marks in the file, each on a line that names what it adds."""
    text = (root / "examples" / "record_your_own_loop.py").read_text()
    marked = [line for line in text.splitlines() if re.search(r"# \d of 3$", line)]
    assert [line.split("#")[-1].strip() for line in marked] == [f"{i} of 3" for i in (1, 2, 3)]
    assert all("oscillab" in line or "recorder" in line for line in marked)
