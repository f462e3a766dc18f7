"""The shell around the state: feeds it from the log, and turns the log's errors into answers.

Thread safety: every method may be called from any thread; ``start`` once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import DecodeError, HeadraceError, RecordTooLargeError, RetryableError
from pipeline.kafka.schemas_reader import LogRecord
from pipeline.registry import errors, subjects
from pipeline.registry.log import SchemasLog
from pipeline.registry.records import Raw, Record, SchemaRecord, decode
from pipeline.registry.registering import Decision
from pipeline.registry.state import RegistryState

log = logging.getLogger("headrace.registry")

_RETRY_S = 1.0


class SchemaStore:
    """State and log of one registry. ``state`` may be read at any time once ``ready``."""

    def __init__(self, topic: SchemasLog) -> None:
        self.state = RegistryState()
        self.topic = topic
        self.unreadable_records = 0
        self.records_applied = 0
        self._unopened: str | None = "the topic has not been read yet"
        self._stopping = threading.Event()
        self._opener: threading.Thread | None = None

    @property
    def failure(self) -> str | None:
        """Why this registry cannot answer; None if it can: the topic was read to its end once, and still is read."""
        return self._unopened or self.topic.failure

    @property
    def ready(self) -> bool:
        return self.failure is None

    def start(self) -> None:
        """Reads the topic in the background, unless it was read already; tries again until it can."""
        if self.ready:
            return
        self._opener = threading.Thread(target=self._open, name="schemas-opener", daemon=True)
        self._opener.start()

    def open(self) -> None:
        """Reads the topic here and now. Raises what the log raises."""
        began_at = time.monotonic()
        self.topic.open(self._apply)
        self._unopened = None
        log.info("read %d records of the schemas topic in %.2f s", self.records_applied, time.monotonic() - began_at)

    def _open(self) -> None:
        while not self._stopping.is_set():
            try:
                self.open()
                return
            except HeadraceError as error:
                if self._unopened != str(error):
                    log.warning("not ready: %s", error)
                self._unopened = str(error)
                self._stopping.wait(_RETRY_S)

    def close(self) -> None:
        self._stopping.set()
        self.topic.close()

    def _apply(self, records: Sequence[LogRecord]) -> None:
        self.state.apply(self._decode(records))
        self.records_applied += len(records)

    def _decode(self, records: Sequence[LogRecord]) -> list[Record]:
        decoded = []
        for record in records:
            try:
                decoded.append(decode(record.key, record.value, record.timestamp_ms))
            except DecodeError as error:
                self.unreadable_records += 1
                log.warning("offset %d is skipped: %s", record.offset, error)
        return decoded

    def refresh(self) -> None:
        """Returns when the state holds everything that any registry acknowledged before the call. Raises 500xx."""
        try:
            self.topic.refresh()
        except RetryableError as error:
            raise errors.timed_out(str(error)) from error
        except HeadraceError as error:
            raise errors.store_failed(str(error)) from error

    def write(self, decide: Callable[[RegistryState], Decision]) -> Any:
        """Writes what ``decide`` decides on the newest state and returns its answer, once it was read back.

        Raises ``RegistryError``: the decision's own, 42209 (too large for the topic), 50002 (outcome unknown: ask again).
        """
        decision: Decision | None = None

        def records() -> list[Raw]:
            nonlocal decision
            decision = decide(self.state)
            return decision.records

        try:
            self.topic.write(records, self._observe)
        except RecordTooLargeError as error:
            raise errors.too_large(f"the schema is too large for the topic: {error}") from error
        except RetryableError as error:
            raise errors.timed_out(str(error)) from error
        except errors.RegistryError:
            raise
        except HeadraceError as error:
            raise errors.store_failed(str(error)) from error
        return decision.answer if decision is not None else None

    def _observe(self, record: LogRecord) -> None:
        try:
            decoded = decode(record.key, record.value)
        except DecodeError:
            return
        if isinstance(decoded, SchemaRecord) and decoded.value is not None:
            self.state.reserve_id(subjects.context_of(decoded.subject), decoded.value.id)
