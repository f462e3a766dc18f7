"""What windows and joins know after a step: it travels in the step's commit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from jobs.golds.commit import Metadata
from jobs.golds.sources import Position

MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class State:
    """``positions`` are of the sources, ``newest_us`` the newest event time seen of each, ``late`` the late rows so far.

    ``definition`` is of the options that the table was made with: with others it has to be made anew.
    """

    definition: str
    positions: Mapping[str, Position]
    newest_us: Mapping[str, int] = field(default_factory=dict)
    late: int = 0

    @classmethod
    def from_metadata(cls, data: Metadata | None) -> State | None:
        if data is None or "definition" not in data:
            return None
        positions = {name: Position.from_json(at) for name, at in data["positions"].items()}
        return cls(data["definition"], positions, data["newest_us"], int(data["late"]))

    def to_metadata(self) -> dict[str, Any]:
        return {
            "definition": self.definition, "positions": self.since, "newest_us": dict(self.newest_us), "late": self.late,
        }  # fmt: skip

    @property
    def since(self) -> dict[str, Any]:
        """The positions, as the late table's commits name the step after them."""
        return {name: at.to_json() for name, at in self.positions.items()}

    def watermark_us(self, lateness: timedelta) -> int | None:
        """The newest event time less ``lateness``, of the source that is furthest behind; None before every source had one."""
        if set(self.newest_us) != set(self.positions):
            return None
        return min(self.newest_us.values()) - lateness // MICROSECOND

    def seen(self, newest_us: Mapping[str, int | None], now_us: int) -> dict[str, int]:
        """``newest_us`` after a step. A row from the future does not move it past the clock, or all others would be late."""
        out = dict(self.newest_us)
        for name, newest in newest_us.items():
            if newest is not None:
                out[name] = max(out.get(name, newest), min(newest, now_us))
        return {name: min(at, now_us) for name, at in out.items()}


def definition_of(options: BaseModel, *more: object) -> str:
    """A digest of what a table is made by."""
    return hashlib.sha256(f"{options.model_dump_json()} {more}".encode()).hexdigest()
