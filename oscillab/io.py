"""How is a file replaced so that a crash or a full disk leaves the old one?"""

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path):
    """A temporary path beside `path` to write to; it takes `path`'s place only when the block ends without an error.

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
