"""What a job tells about itself after each commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableProgress:
    """``micro_batches`` are of this run; ``version`` is Delta's. The counts are totals since the table was made (bronze), or
    of this run (silver: rows merged, repeats of explicit ids, dead letters; gold: rows of the newest refresh)."""

    table: str
    micro_batches: int = 0
    version: int = -1
    records: int = 0
    repeats: int = 0
    voids: int = 0
    rejected: int = 0
    messages: int = 0
    bytes: int = 0


OnProgress = Callable[[TableProgress], None]
