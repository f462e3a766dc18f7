"""A position on disk that survives SIGKILL and power loss: how far a source has been read for good.

Write a position only once everything up to it is acknowledged. After a crash the file may be behind (records are then
put again, with the same dedup ids, and dropped as repeats), never ahead (records would be missing).
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from pipeline.errors import ConfigError

NOTHING = -1  # the position before the first record


class PositionFile:
    """One position in one small file, replaced atomically. For one process at a time; not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> int:
        """The stored position, -1 if none was stored yet; ConfigError if the file holds something else."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return NOTHING
        try:
            position = json.loads(text)["position"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged() from error
        if not isinstance(position, int) or isinstance(position, bool) or position < NOTHING:
            raise self._damaged()
        return position

    def store(self, position: int) -> None:
        """Replace the stored position; on return it is on disk (file and folder are synced)."""
        folder = self._path.parent
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"position": position}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        self._sync(folder)

    @staticmethod
    def _sync(folder: Path) -> None:
        # The rename itself lives in the folder; without this a power cut may bring the old file back, or none.
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _damaged(self) -> ConfigError:
        return ConfigError(
            f'{self._path} does not hold a position such as {{"position": 41}}: delete it to start from the first record '
            "(what was already sent is then recognised and dropped)"
        )
