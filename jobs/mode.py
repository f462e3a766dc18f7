"""How long a job runs: through what is there now, or on and on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError

CONTINUOUS_INTERVAL_S = 1.0
"""Often enough for a freshness of about two seconds; a Delta commit costs 0.7 s or more, and each makes small files."""

_UNITS = {"ms": 0.001, "s": 1.0, "second": 1.0, "seconds": 1.0, "m": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Mode:
    """``interval_s`` is None for available-now: everything that is there, then the end."""

    interval_s: float | None

    @property
    def is_bounded(self) -> bool:
        return self.interval_s is None

    def trigger(self) -> dict[str, Any]:
        """Arguments of ``DataStreamWriter.trigger``."""
        if self.interval_s is None:
            return {"availableNow": True}
        return {"processingTime": f"{round(self.interval_s * 1000)} milliseconds"}


def parse_mode(text: str) -> Mode:
    """``available-now``, ``continuous``, or an interval such as ``10s`` or ``5 minutes``. Raises ConfigError."""
    if text == "available-now":
        return Mode(None)
    if text == "continuous":
        return Mode(CONTINUOUS_INTERVAL_S)
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*", text)
    if match is None or match[2] not in _UNITS:
        raise ConfigError(f"mode {text!r}: expected available-now, continuous, or an interval such as 10s or 5 minutes")
    return Mode(float(match[1]) * _UNITS[match[2]])
