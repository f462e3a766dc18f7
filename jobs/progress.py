"""What a job tells about itself after each commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableProgress:
    """``micro_batches`` are of this run; ``version`` is Delta's. The counts are totals since the table was made (bronze), or
    of this run (silver: rows merged, repeats of explicit ids, dead letters; gold: rows that the newest commit wrote). ``late``
    are a gold table's late rows so far, ``watermark_us`` its watermark in microseconds (None: none yet)."""

    table: str
    micro_batches: int = 0
    version: int = -1
    records: int = 0
    repeats: int = 0
    voids: int = 0
    rejected: int = 0
    messages: int = 0
    bytes: int = 0
    late: int = 0
    watermark_us: int | None = None


OnProgress = Callable[[TableProgress], None]
