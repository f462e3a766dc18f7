"""Where the embedded stack keeps things: a home per stack (data, logs, pids) and one cache of downloads per installation."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StackError

HOME_VARIABLE = "HEADRACE_HOME"
CACHE_VARIABLE = "HEADRACE_CACHE"


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one embedded stack, absolute and resolved; every other path hangs below it."""

    root: Path

    @staticmethod
    def find(path: str | Path | None = None) -> Home:
        """``path``, else $HEADRACE_HOME, else ``.headrace`` in the current folder. Creates nothing."""
        return Home(Path(path or os.environ.get(HOME_VARIABLE) or ".headrace").expanduser().resolve())

    @property
    def state(self) -> Path:
        """stack.json: there while the stack is up; how clients find it."""
        return self.root / "stack.json"

    @property
    def cluster(self) -> Path:
        """cluster.json: identity and ports; outlives ``down``."""
        return self.root / "cluster.json"

    @property
    def lock(self) -> Path:
        return self.root / "stack.lock"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        return self.root / "run"

    def prepare(self) -> None:
        """Create the folders; StackError when the place cannot be written."""
        try:
            for folder in (self.root, self.config, self.data, self.logs, self.run):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StackError(
                f"cannot write the stack's folder {self.root}: {error.strerror or error}; "
                f"free that path, or point {HOME_VARIABLE} to a folder that can be written"
            ) from error


def cache_dir() -> Path:
    """The folder of downloaded jars and Java wrappers; shared by all homes, safe to delete.

    $HEADRACE_CACHE, else ``share/headrace`` of the virtual environment, else ``~/.cache/headrace``. Creates nothing.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser().resolve()
    if sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK):
        return Path(sys.prefix) / "share" / "headrace"
    return Path.home() / ".cache" / "headrace"


def write_json(path: Path, content: Any) -> None:
    """Write as a whole or not at all: a reader (or a crash) never meets half a file."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def read_json(path: Path) -> Any | None:
    """The content, or None when there is no such file or it holds no JSON (damaged: treated as absent)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
