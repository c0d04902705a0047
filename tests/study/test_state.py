"""A job's folder: whose it is, how far it came, and who works in it."""

import json
from dataclasses import replace

import pytest

from oscillab.data.options import DataSource
from oscillab.study import job as state
from oscillab.study.grid import jobs_of
from oscillab.yolo import checkpoint

ROW = {"network": "yolov5n", "task": "detect", "bits": 3, "ends_bits": 8, "seed": 0, "map": 0.25}


def test_a_folder_of_another_configuration_is_refused(tiny):
    """Oracle: the option that was changed, named; the folder's own configuration is taken again."""
    job = jobs_of(tiny())[0]
    state.claim(job)
    state.claim(job)
    other = jobs_of(tiny(qc_epochs=2))[0]
    with pytest.raises(ValueError, match=r"run of another configuration \(correction.epochs differ\): give another"):
        state.claim(other)


def test_a_folder_that_no_job_made_is_refused(tiny):
    """Oracle: a run of the command `qat`, or of a study before there were jobs; nothing is written beside it."""
    job = jobs_of(tiny())[0]
    job.folder.mkdir(parents=True)
    (job.folder / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds a run that no job of a study made .*: give another --out"):
        state.claim(job)
    assert [path.name for path in job.folder.iterdir()] == ["run.json"]


def test_status_follows_what_is_measured(tiny):
    """Oracle: the life of a job by hand: planned, running, failed with its error, done; more asked for, running again."""
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


def test_measuring_has_a_progress_bar(tiny, capsys):
    """Oracle: users.md 26: a study was silent for a minute; the bar of evaluation, and none where none is wanted."""
    for progress in (False, True):
        options = tiny(run=replace(tiny().run, progress=progress))
        job, source = jobs_of(options)[0], DataSource(options.data)
        row = state.measured_row(job, source, "fp32", checkpoint.load(job.weights.path), 0.0)
        assert ("evaluate: 100%" in capsys.readouterr().err) is progress and row["bits"] == 32


def test_one_process_works_in_a_folder(tmp_path):
    """Oracle: the second one waits its patience and is told; the lock is free when the block is left."""
    with (
        state.locked(tmp_path, "study"),
        pytest.raises(ValueError, match="another study is at work in"),
        state.locked(tmp_path, "study", patience=0.0),
    ):
        raise AssertionError("two hold the lock")
    with state.locked(tmp_path, "study", patience=0.0):
        pass


def test_rows_survive_a_write_that_fails(tiny, monkeypatch):
    """Oracle: the rows from before, when the disk is full while a row is added."""
    job = jobs_of(tiny())[0]
    state.add_row(job, ROW | {"method": "lsq"})

    def full(self, path, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pandas.DataFrame.to_csv", full)
    with pytest.raises(OSError, match="rows.csv"):
        state.add_row(job, ROW | {"method": "ema"})
    monkeypatch.undo()
    assert [row["method"] for row in state.rows_of(job)] == ["lsq"]
    assert json.loads((job.folder / "job.json").read_text() if (job.folder / "job.json").is_file() else "{}") == {}
