"""A job's folder: whose it is, how far it came, and who works in it."""

import shutil
from dataclasses import replace

import pytest

from oscillab.study import job as state
from oscillab.study.config import PRESETS
from oscillab.study.grid import jobs_of

ROW = {"network": "yolov5n", "task": "detect", "bits": 3, "ends_bits": 8, "seed": 0, "map": 0.25}


def test_a_folder_of_another_configuration_is_refused(tiny):
    """Oracle: the changed option, named; a run of `qat` or of a study before there were jobs is left as it was."""
    job = jobs_of(tiny())[0]
    job.folder.mkdir(parents=True)
    (job.folder / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds a run that no job of a study made .*: give another --out"):
        state.claim(job)
    assert [path.name for path in job.folder.iterdir()] == ["run.json"]
    (job.folder / "run.json").unlink()
    state.claim(job)
    state.claim(job)
    with pytest.raises(ValueError, match=r"run of another configuration \(correction.epochs differ\): give another"):
        state.claim(jobs_of(tiny(qc_epochs=2))[0])


@pytest.mark.parametrize("preset", ["quick", "ablation"])
def test_folders_of_the_first_edition_still_read(root, tmp_path, preset):
    """Oracle: a shipped study whose job.json has an old word is what the preset asks for, all of it measured."""
    out = shutil.copytree(root / "data" / "results" / preset, tmp_path / preset)
    for job in jobs_of(replace(PRESETS[preset], out=out, schedules=("constant",))):
        state.claim(job)
        assert state.status(job) == "done" and len(state.rows_of(job)) >= len(job.methods)


def test_status_and_rows(tiny, monkeypatch, tmp_path):
    """Oracle: a job's life by hand; a full disk keeps the rows; a second process is told, the lock freed at the end."""
    job = jobs_of(tiny())[0]
    assert state.status(job) == "planned" and len(state.missing(job)) == 4
    state.set_status(job, "running")
    state.set_status(job, "failed", error="ValueError: no")
    assert state.status(job) == "failed" and state.read_status(job)["error"] == "ValueError: no"
    for method, _, _ in job.methods:
        state.add_row(job, ROW | {"method": method})
    state.set_status(job, "done")
    assert state.status(job) == "done" and state.missing(job) == []
    more = jobs_of(tiny(controls=("none", "qc", "qc_scale")))[0]
    assert [method for method, _, _ in state.missing(more)] == ["ema+qc_scale"] and state.status(more) == "running"

    def full(self, path, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pandas.DataFrame.to_csv", full)
    with pytest.raises(OSError, match="rows.csv"):
        state.add_row(job, ROW | {"method": "ema+qc_scale"})
    monkeypatch.undo()
    assert [row["method"] for row in state.rows_of(job)] == [method for method, _, _ in job.methods]
    with (
        state.locked(tmp_path, "study"),
        pytest.raises(ValueError, match="another study is at work in"),
        state.locked(tmp_path, "study", patience=0.0),
    ):
        raise AssertionError("two hold the lock")
    with state.locked(tmp_path, "study", patience=0.0):
        pass
