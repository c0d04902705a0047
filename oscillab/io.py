"""Write files whole or not at all: a crash or a full disk leaves the old one."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes `path`'s place only when the block ends without an error.

    Raises OSError in one line that names `path` when writing failed; the former file, if any, stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        if isinstance(error, RuntimeError) and "write" not in str(error).lower():
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise OSError(f"could not write {path}: {reason}; the file that was there before is unchanged") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path | str, content: Any) -> Path:
    """Write `content` to a JSON file and return its path."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    return Path(path)


def shipped(name: str) -> Path:
    """Return the path of a file that comes with oscillab: a detector (`yolov5n-scenes.pt`), a table (`paper/main.csv`).

    An installed package has them within it, a checkout in data/; nothing is there where neither has the file.
    """
    here = Path(__file__).resolve().parent
    inside = here / "shipped" / name
    return inside if inside.exists() else here.parent / "data" / name
