"""So many records a second at most."""

from __future__ import annotations

import time


class Pace:
    """``rate`` records a second; None for no limit. Sleeps in ``step``, never longer than the records of one second."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next = time.monotonic()

    def step(self) -> None:
        """Wait until the next record may go."""
        if self._rate is None:
            return
        now = time.monotonic()
        if self._next > now:
            time.sleep(self._next - now)
        self._next = max(self._next, now) + 1 / self._rate
