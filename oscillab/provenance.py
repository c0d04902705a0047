"""Say how a result came about: versions, commit, processor and threads."""

import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import oscillab
from oscillab.io import shipped

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = shipped("yolov5n-scenes.pt")
COMMIT = ("describe", "--always", "--abbrev=12")
CODE = ("oscillab", "pyproject.toml", "constraints.txt", "data/*.pt")  # what a result depends on
CHANGES = ("status", "--porcelain", "--", *CODE)


def provenance(config: Any, *, device: str = "cpu", **measured: Any) -> dict[str, Any]:
    """Return what is needed to make a result again, and what was measured; `config` is a dataclass."""
    versions = {"oscillab": oscillab.__version__, "torch": torch.__version__, "python": platform.python_version()}
    where = {"versions": versions, "hardware": hardware(device), "commit": commit()}
    return {"config": plain(asdict(config)), **where, **measured}


def plain(value: Any) -> Any:
    """Return the value in what JSON holds; a path as given or relative to the project, never one machine's own."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if not isinstance(value, Path):
        return value
    if not value.is_absolute():
        return value.as_posix()
    return value.relative_to(ROOT).as_posix() if value.is_relative_to(ROOT) else value.name


def commit() -> str | None:
    """Return the running commit, with a plus when the code differs from it; None outside a checkout."""
    if not (ROOT / ".git").exists():  # an installed package may lie within somebody else's repository
        return None
    try:
        found, changed = (_git(*words) for words in (COMMIT, CHANGES))
    except (OSError, subprocess.CalledProcessError):
        return None
    return found + ("+" if changed else "")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def hardware(device: str = "cpu") -> str:
    """Return one line that names the processor and the threads, or the accelerator."""
    if str(device).startswith("cuda"):
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    named = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    name = named[0].split(":", 1)[1].strip() if named else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} thread(s)"
