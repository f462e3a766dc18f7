"""Runs a Python module with all it prints going to a log file of bounded size.

    python -m pipeline.local.child -Dheadrace.home=… -Dheadrace.name=… --log FILE -- MODULE ARGUMENT…

The embedded stack starts the registry so: a service that logs to standard output would else fill the disk over the months.
"""

from __future__ import annotations

import logging
import os
import runpy
import sys
import threading
import traceback
from logging.handlers import RotatingFileHandler
from pathlib import Path

_BYTES_MAX = 5_000_000
_OLD_FILES = 2


def main(arguments: list[str]) -> None:
    own, module, rest = _split(arguments)
    drain = _redirect(Path(own[own.index("--log") + 1]))
    sys.argv = [module, *rest]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            sys.stderr.write(f"{stop.code}\n")
            raise SystemExit(1) from None
        raise
    except Exception:  # noqa: BLE001  the last thing it says belongs in the log, before the pipe is closed
        traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        drain.finish()


def _split(arguments: list[str]) -> tuple[list[str], str, list[str]]:
    middle = arguments.index("--")
    return arguments[:middle], arguments[middle + 1], arguments[middle + 2 :]


class _Drain:
    """A thread that moves what comes out of a pipe to the rotating log, line by line."""

    def __init__(self, source: int, log: Path) -> None:
        self._source = source
        self._handler = RotatingFileHandler(log, maxBytes=_BYTES_MAX, backupCount=_OLD_FILES, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(message)s"))
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with os.fdopen(self._source, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self._handler.emit(logging.LogRecord("", logging.INFO, "", 0, line.rstrip("\n"), None, None))

    def finish(self) -> None:
        """Let go of the pipe's writing ends, so that the thread meets its end, and wait for it."""
        for descriptor in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        self._thread.join(timeout=5)


def _redirect(log: Path) -> _Drain:
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.close(writing)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return _Drain(reading, log)


if __name__ == "__main__":
    main(sys.argv[1:])
