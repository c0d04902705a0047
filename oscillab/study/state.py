"""What does a job's folder say of it, so that a killed study goes on where it was?

job.json holds the configuration and its hash, status.json how far it came, rows.csv what was measured; `lock` is held by the
process that works on it, and let go by the system however that process ends.
"""

import json
from contextlib import contextmanager

import pandas as pd
from filelock import FileLock, Timeout

from oscillab.io import atomic_write, write_json
from oscillab.quant.layers import RENAMED
from oscillab.study.table import COLUMNS

PATIENCE = 20.0  # seconds that a dying process may take to let go of its lock
STATUSES = ("planned", "running", "failed", "done")


class Clash(ValueError):
    """A folder belongs to something else."""


@contextmanager
def locked(folder, what, *, patience=PATIENCE):
    """Nothing; within the block this process alone works in `folder`. Raises ValueError when another does."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=patience, poll_interval=0.1):
            yield
    except Timeout:
        raise Clash(f"another {what} is at work in {folder}: wait for it, or give another --out") from None


def claim(job):
    """Nothing; job.json now says what the folder is for. Raises ValueError where it is for another configuration.

    Options that came after the folder was made were at their defaults then, and do not count.
    """
    path, mine = job.folder / "job.json", job.configuration()
    if path.is_file():
        before = json.loads(path.read_text())["configuration"]
        before["quant"] = {RENAMED.get(name, name): value for name, value in before["quant"].items()}
        if changed := differences(before, mine):
            changed = ", ".join(changed)
            raise Clash(f"{job.folder} holds a run of another configuration ({changed} differ): give another --out")
        return
    if (job.folder / "run.json").is_file():
        raise Clash(f"{job.folder} holds a run that no job of a study made (it has no job.json): give another --out")
    write_json(path, {"hash": job.hash(), "configuration": mine})


def differences(before, after, prefix=""):
    """The dotted names of the entries of both of two nested mappings in which they differ.

    >>> differences({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 2, "d": 4}, "e": 5})
    ['b.d']
    """
    found = []
    for name in sorted(before.keys() & after.keys()):
        one, other = before[name], after[name]
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{prefix}{name}.")
        elif one != other:
            found.append(f"{prefix}{name}")
    return found


def status(job):
    """How far a job came: planned, running, failed or done (all of its methods measured)."""
    if missing(job) == []:
        return "done"
    found = read_status(job)["status"]
    return "running" if found == "done" else found  # more was asked for than when it was done


def read_status(job):
    """What status.json says: the status, and the error of a job that failed."""
    path = job.folder / "status.json"
    return json.loads(path.read_text()) if path.is_file() else {"status": "planned"}


def set_status(job, name, **more):
    """Nothing; status.json now says so."""
    write_json(job.folder / "status.json", {"status": name, **more})


def rows(job):
    """What was measured so far, as a list of rows of `COLUMNS`."""
    path = job.folder / "rows.csv"
    return pd.read_csv(path).to_dict("records") if path.is_file() else []


def add_row(job, row):
    """Nothing; rows.csv has one more row, whole or not at all."""
    table = pd.DataFrame([*rows(job), row], columns=COLUMNS)
    with atomic_write(job.folder / "rows.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")


def missing(job):
    """The methods that are not measured yet, (method, start, control) each."""
    measured = {row["method"] for row in rows(job)}
    return [each for each in job.methods if each[0] not in measured]
