"""Ctrl-C, SIGTERM and SIGHUP end the demo in order: once, and a second one does not interrupt the cleaning up."""

from __future__ import annotations

import signal
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def install() -> None:
    """Raise KeyboardInterrupt in the main thread at the first of them. Spark puts its own handler in place when it starts,
    so call this again afterwards."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for one in _SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt
