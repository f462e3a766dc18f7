"""The demo's own folder: a small project of its own below HEADRACE_HOME, made anew by every run.

    $HEADRACE_HOME/demo/          (.headrace/demo)
        headrace.yml, schemas/, jobs/sql/     copies of the repository's
        demo.json                             says that the folder is the demo's, and whose its stack is
        .headrace/                            the stack's home, warehouse/, references/, positions/, logs/

So the demo never touches anybody's streams or tables, and afterwards `cd .headrace/demo && headrace up` brings its streams
and tables back to look at.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

import jobs
from pipeline.config import Config, load_config
from pipeline.config.load import CONFIG_VARIABLE, HOME_VARIABLE, OVERRIDE_PREFIX, home
from pipeline.errors import ConfigError
from pipeline.local import stack

_MARKER = "demo.json"


@dataclass(frozen=True, slots=True)
class Workspace:
    """A fresh folder to run the demo in. ``stack_stays``: the stack in it was up before, by somebody else's wish."""

    root: Path
    stack_stays: bool

    @property
    def home(self) -> Path:
        """HEADRACE_HOME of everything in here."""
        return self.root / ".headrace"

    @property
    def references(self) -> Path:
        return self.home / "references"

    @property
    def positions(self) -> Path:
        return self.home / "positions"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def config_file(self) -> Path:
        return self.root / "headrace.yml"

    def environment(self) -> dict[str, str]:
        """For the demo's own processes: this project, without the overrides of whoever called the demo."""
        return environment_of(self.home, self.config_file)

    def config(self) -> Config:
        """The demo's configuration; its connection is known once the stack is up."""
        return load_config(self.config_file, self.environment())


def environment_of(home_folder: Path, config_file: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if not name.startswith(OVERRIDE_PREFIX)}
    return kept | {HOME_VARIABLE: str(home_folder), CONFIG_VARIABLE: str(config_file)}


@contextmanager
def workspace(parent: Path | None = None) -> Iterator[Workspace]:
    """The demo's folder below ``parent`` (default: HEADRACE_HOME), emptied; its stack is taken down at the end, unless it
    was up before and not left behind by a demo that was killed.

    Raises ConfigError if the folder is not the demo's, if another demo runs there, or without the repository's files.
    """
    parent = home() if parent is None else parent
    parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(parent / "demo.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"another demo runs in {parent / 'demo'}: wait for it, or set {HOME_VARIABLE} to another folder"
        ) from None
    try:
        place = _prepare(parent / "demo")
        try:
            yield place
        finally:
            if not place.stack_stays:
                stack.down(place.home)
            _mark(place.root, over=True, stack_stays=place.stack_stays)
    finally:
        lock.release()


def _prepare(root: Path) -> Workspace:
    marker = _read_marker(root)
    home_folder = root / ".headrace"
    # What a killed demo left up is not "up before": nobody asked for it.
    wanted = marker.get("over", True) or marker.get("stack_stays", False)
    place = Workspace(root, stack_stays=wanted and stack.status(home_folder).stack is not None)
    stack.down(home_folder)
    _replace(root, place)
    _copy_project(root)
    place.logs.mkdir(parents=True)
    return place


def _replace(root: Path, place: Workspace) -> None:
    """Swap the old folder for a marked, empty one by renames: killed in between, the next run must not meet half of one."""
    old, new = root.with_name(".demo-old"), root.with_name(".demo-new")
    for leftover in (old, new):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    _mark(new, over=False, stack_stays=place.stack_stays)
    if root.exists():
        root.rename(old)
    new.rename(root)
    shutil.rmtree(old, ignore_errors=True)


def _read_marker(root: Path) -> dict[str, bool]:
    try:
        marker = json.loads((root / _MARKER).read_text(encoding="utf-8"))
        return {"over": bool(marker["over"]), "stack_stays": bool(marker["stack_stays"])}
    except (OSError, ValueError, KeyError, TypeError):
        if root.exists() and not (root.is_dir() and not any(root.iterdir())):
            raise ConfigError(
                f"{root} is where the demo works, but holds something else: move it away, or set {HOME_VARIABLE} to another "
                "folder"
            ) from None
        return {}


def _mark(root: Path, *, over: bool, stack_stays: bool) -> None:
    partial = root / f".{_MARKER}"
    partial.write_text(json.dumps({"over": over, "stack_stays": stack_stays}) + "\n", encoding="utf-8")
    partial.replace(root / _MARKER)


def _copy_project(root: Path) -> None:
    repository = Path(jobs.__file__).resolve().parents[1]
    for name in ("headrace.yml", "schemas", "jobs/sql"):
        source, target = repository / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        elif source.is_file():
            shutil.copy(source, target)
        else:
            raise ConfigError(f"{source} is missing: the demo runs from a clone of the repository (`make demo`)")
