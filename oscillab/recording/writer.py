"""What is left of a recording when its process dies?

All that was recorded up to the last full window of time. The file grows by a chunk at every window; when it has become
several times as large as the recording itself (the state of every weight comes anew with each chunk), it is written
anew. At the end it is the file that `Recording.save` writes.
"""

import logging
from pathlib import Path

import numpy as np

from oscillab.recording import archive
from oscillab.recording.snapshot import chunk, meta, snapshot

GROWTH = 4  # a file of so many times its size when it was written anew is written anew; then that costs a third of all

log = logging.getLogger(__name__)


class Writer:
    """Keeps the file at `path` up to date with a recorder."""

    def __init__(self, path):
        self.path = Path(path)
        self.restart()

    def restart(self) -> None:
        """Write the whole file at the next window, as after a resume."""
        self._limit, self._chunk_count = 0, 0

    def add(self, recorder, window: dict[str, np.ndarray]) -> None:
        """Bring the file up to date at the end of a window, whose arrays are given.

        A failure, of a full disk for instance, is logged and does not stop the training: the next window tries again.
        """
        try:
            if self._limit and self.path.stat().st_size <= self._limit:
                self._append(recorder, window)
            else:
                self._write(recorder)
            self._since = recorder.rows.counts()
        except OSError as error:
            log.warning("the recording could not be written at step %d: %s", recorder.step_count, error)
            self.restart()

    def finish(self, recorder) -> None:
        """Write the whole recording; raises OSError where that fails."""
        snapshot(recorder).save(self.path)

    def _write(self, recorder) -> None:
        recording = snapshot(recorder)
        recording.meta["unfinished"] = True
        self._arrays, self._chunk_count = list(recording.arrays), 0
        recording.save(self.path)
        self._limit = GROWTH * self.path.stat().st_size

    def _append(self, recorder, window) -> None:
        arrays, grown = chunk(recorder, self._since)
        about = meta(recorder) | {"unfinished": True, "arrays": self._arrays}
        self._chunk_count += 1
        archive.append(self.path, self._chunk_count, about, arrays | window, grown=[*grown, *window])
