"""The log under a registry: what it must do, and one in memory that does it for tests and for looking around."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline.kafka.schemas_reader import LogRecord

Raw = tuple[bytes, bytes | None]
Apply = Callable[[Sequence[LogRecord]], None]
Observe = Callable[[LogRecord], None]


class SchemasLog(Protocol):
    """An ordered log of records. ``pipeline.kafka.schemas_topic.SchemasTopic`` says what each method promises."""

    turns_taken: int
    turns_lost: int

    @property
    def failure(self) -> str | None: ...
    def open(self, apply: Apply) -> None: ...
    def refresh(self) -> None: ...
    def write(self, decide: Callable[[], Sequence[Raw]], observe: Observe) -> None: ...
    def close(self) -> None: ...


class MemoryLog:
    """A log in memory. Several registries may share one: each applies all records, in order, when it refreshes or writes."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []
        self._lock = threading.RLock()

    def append(self, *records: Raw) -> None:
        """Writes without deciding, as another registry would."""
        with self._lock:
            for key, value in records:
                self.records.append(LogRecord(len(self.records), key, value, 1_700_000_000_000 + len(self.records)))

    def compact(self) -> None:
        """Keeps the last record of each key, and no tombstones, as Kafka does in the end."""
        with self._lock:
            last = {record.key: record for record in self.records}
            self.records = sorted((r for r in last.values() if r.value is not None), key=lambda r: r.offset)

    def view(self) -> MemoryView:
        return MemoryView(self, self._lock)


class MemoryView:
    """One registry's end of a ``MemoryLog``."""

    def __init__(self, log: MemoryLog, lock: threading.RLock) -> None:
        self._log = log
        self._lock = lock
        self._applied = 0
        self._apply: Apply | None = None
        self.failure: str | None = None
        self.turns_taken = 0
        self.turns_lost = 0

    def open(self, apply: Apply) -> None:
        self._apply = apply
        self.refresh()

    def refresh(self) -> None:
        with self._lock:
            records = self._log.records[self._applied :]
            self._applied = len(self._log.records)
            if self._apply is not None and records:
                self._apply(records)

    def write(self, decide: Callable[[], Sequence[Raw]], observe: Observe) -> None:
        with self._lock:
            self.refresh()
            self._log.append(*decide())
            self.refresh()

    def close(self) -> None:
        self._apply = None
