"""The demo's side of its producer process: starts it, follows its reports, kills it halfway, starts it again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jobs
from jobs.demo.workspace import Workspace
from pipeline.errors import HeadraceError, StopError

_LOG_LINES = 5
_CHECK_S = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream is, in positions (-1: nothing yet)."""

    put: int = -1
    acknowledged: int = -1
    stored: int = -1
    done: bool = False


@dataclass(slots=True)
class _Reports:
    changed: threading.Condition = field(default_factory=threading.Condition)
    of: dict[str, Progress] = field(default_factory=dict)
    ended: bool = False


class ProducerProcess:
    """One start of the producer process. Use as a context manager: nothing of it runs afterwards."""

    def __init__(
        self,
        place: Workspace,
        rows: int | None,
        hold_at: int | None,
        on_progress: Callable[[str, Progress], None],
        *,
        hold_late: bool = False,
    ) -> None:
        self._log = place.logs / "producer.log"
        self._on_progress = on_progress
        self._reports = _Reports()
        command = [sys.executable, "-m", "jobs.demo.producer_process", "--positions", str(place.positions)]
        command += ["--rows", str(rows)] if rows is not None else []
        command += ["--hold-at", str(hold_at)] if hold_at is not None else []
        command += ["--hold-late"] if hold_late else []
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end tells the process that the demo is gone
                stdout=subprocess.PIPE,
                stderr=log,
                env=place.environment() | {"PYTHONPATH": _code_path()},
                start_new_session=True,  # Ctrl-C is the demo's to handle
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> ProducerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def kill_when(self, ready: Callable[[Progress], bool], check: Callable[[], None]) -> Progress:
        """Wait until flights are ``ready``, then SIGKILL; gives the last progress that the process reported."""
        self._wait(lambda: ready(self._reports.of.get("flights", Progress())), check)
        self._process.kill()
        if self._process.wait() != -signal.SIGKILL:
            raise StopError(f"the producer ended by itself before it was killed; see {self._log}")
        self._reader.join()
        return self._reports.of["flights"]

    def finish(self, check: Callable[[], None]) -> dict[str, Progress]:
        """Wait until everything is acknowledged and the process has ended; the last progress of each stream."""
        self._wait(lambda: self._reports.ended, check)
        if self._process.wait() != 0:
            raise self._failure()
        return dict(self._reports.of)

    def _wait(self, ready: Callable[[], bool], check: Callable[[], None]) -> None:
        """``check`` is called now and then and may raise: what else the demo runs may have failed meanwhile."""
        with self._reports.changed:
            while not ready():
                if self._reports.ended:
                    self._process.wait()
                    raise self._failure()
                self._reports.changed.wait(_CHECK_S)
                check()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                report = json.loads(line)
            except ValueError:  # the last line of a killed process may be cut
                continue
            stream, progress = report.pop("stream"), Progress(**report)
            with self._reports.changed:
                self._reports.of[stream] = progress
                self._reports.changed.notify_all()
            self._on_progress(stream, progress)
        with self._reports.changed:
            self._reports.ended = True
            self._reports.changed.notify_all()

    def _failure(self) -> HeadraceError:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        said = " / ".join(lines) or "it said nothing"
        return StopError(f"the producer process ended with code {self._process.returncode}: {said} (all of it in {self._log})")


def _code_path() -> str:
    # A checkout that is not installed is found by its path, whatever the working folder.
    return os.pathsep.join(filter(None, (str(Path(jobs.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH"))))
