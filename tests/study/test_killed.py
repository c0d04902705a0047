"""A study that is killed, or one of whose runs fails, ends with the table that it would have had."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest

from oscillab.study import job as state
from oscillab.study import run as pool
from oscillab.study.grid import jobs_of
from oscillab.study.run import run_study
from oscillab.train.config import RunOptions

KILLS = 5


def table_of(options):
    return pd.read_csv(options.folder / "table.csv").drop(columns="seconds")


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with everything imported, and without the threads of this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["oscillab.study.run"])
    return context


@pytest.fixture
def no_report(monkeypatch):
    """Studies end with their table; the figures of a report take longer than all the rest."""
    monkeypatch.setattr(pool.report, "write", lambda folder: folder / "report.html")


@pytest.mark.slow
def test_kills_at_random_moments_leave_the_same_table(tiny, tmp_path, processes):
    """Oracle: the table of a study that nobody disturbed, number for number."""
    undisturbed, options = tiny(out=tmp_path / "undisturbed"), tiny(out=tmp_path / "killed")
    started = time.monotonic()
    run_study(undisturbed)
    whole, random = time.monotonic() - started, np.random.default_rng(0)
    for moment in random.uniform(0.05, whole / 3, KILLS):
        process = processes.Process(target=run_study, args=(options,))
        process.start()
        process.join(moment)
        if process.exitcode is not None:  # on a machine that others slowed down at first, it may come to its end
            assert process.exitcode == 0
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    run_study(options)
    pd.testing.assert_frame_equal(table_of(options), table_of(undisturbed))
    names = {path.name for path in next(options.folder.glob("yolov5n*")).iterdir()}
    assert {"lsq.pt", "ema.pt", "lsq.npz", "ema.npz", "log.csv", "run.json"} <= names and "last.pt" not in names


@pytest.mark.slow
def test_the_processes_of_a_killed_study_end_with_it(tiny, processes):
    """Oracle: the lock of each job can be had soon after the study was killed, and the study then ends as ever."""
    options = tiny(seeds=(0, 1), jobs=2, averages=(), controls=("none",))
    process = processes.Process(target=run_study, args=(options,))
    process.start()
    jobs = jobs_of(options)
    while not all(state.read_status(job)["status"] == "running" for job in jobs):
        assert process.is_alive()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    run_study(options)
    assert set(table_of(options).seed) == {0, 1} and all(state.status(job) == "done" for job in jobs)


def test_a_failed_run_takes_no_other_along(tiny, monkeypatch, no_report):
    """Oracle: seed 1 fails, the other is in the table, the error names the one, a second call mends it; exit codes."""
    run_job = pool.run_job

    def fail_for_one(job, source):
        if job.seed == 1:
            state.set_status(job, "failed", error="FloatingPointError: the loss became nan")
            raise FloatingPointError("the loss became nan")
        return run_job(job, source)

    options = tiny(seeds=(1, 0), averages=(), controls=("none",))
    monkeypatch.setattr(pool, "run_job", fail_for_one)
    with pytest.raises(ValueError, match="1 of 2 runs failed, .* yolov5n-3bit-constant-seed1 .FloatingPointError: the"):
        run_study(options)
    assert set(table_of(options)[lambda table: table.method == "lsq"].seed) == {0}
    monkeypatch.setattr(pool, "run_job", run_job)
    run_study(options)
    assert set(table_of(options)[lambda table: table.method == "lsq"].seed) == {0, 1}
    job = jobs_of(tiny(seeds=(7,)))[0]  # of a killed process, which could not write its status
    state.set_status(job, "running")
    assert pool.outcome(job, -9) == "its process ended with exit code -9"
    assert state.status(job) == "failed" and pool.outcome(job, 0) is None


def test_a_network_that_was_removed_is_named_and_the_table_stays(tiny, capsys, no_report):
    """Oracle: the sentence; table.csv byte for byte; bars that name the job."""
    options = tiny(averages=(), controls=("none",), run=RunOptions())
    run_study(options)
    job, bars = "yolov5n-3bit-constant-seed0", capsys.readouterr().err
    assert f"{job} QAT 3 bit: 100%" in bars and bars.count(f"{job} evaluate: 100%") >= 3
    folder, table = options.folder / job, (options.folder / "table.csv").read_bytes()
    (folder / "lsq.pt").unlink()
    (folder / "rows.csv").unlink()
    with pytest.raises(ValueError, match=r"each of 1 runs failed: .*lsq.pt, which lsq is measured from, was removed"):
        run_study(options)
    assert (options.folder / "table.csv").read_bytes() == table
