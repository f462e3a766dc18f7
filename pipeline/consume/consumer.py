"""The consumer: records of a stream, in order per key, committed after they were handled. This file only wires.

    fetch → gate → unpack → drop repeats → handle (retry, dead letter) → checkpoint

Delivery is at least once: a record handled just before a crash comes again, with the same (producer, seq) and the same
``id``. Order: records of one partition key come in the order in which they were put, also across splits, merges and
rebalances. Not thread-safe: use one consumer per thread or process; Kafka's group protocol shares out the shards.
"""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from types import TracebackType

from pipeline.config import Config, load_config
from pipeline.consume.reading import EARLIEST, ReaderStats, Reading
from pipeline.consume.rewind import start_of
from pipeline.consume.unpack import Kind, Unpacked, Unpacker
from pipeline.deadletter.letters import TEXT_CHARS_MAX, DeadLetter, DeadLetters
from pipeline.errors import ClosedError, ConfigError, RetryableError
from pipeline.kafka.registry_client import RegistryClient
from pipeline.model.record import Record
from pipeline.model.shards import ShardMap
from pipeline.observe.endpoint import serve
from pipeline.reshard.control_log import ControlLog
from pipeline.reshard.resharder import Finisher
from pipeline.schema.value_schema import load_schema

log = logging.getLogger("headrace.consume")
BACKOFF_S_FIRST, BACKOFF_S_MAX = 0.1, 10.0
Handler = Callable[[Record], object]


class Consumer:
    """Reads a stream as a member of ``group``.

    ``start`` is where a group begins that is new to the stream: "earliest" (default), "latest", or a time (a datetime with
    its zone); ``pipeline.rewind`` starts a group over that is not. Positions are committed
    every ``commit_interval_s`` seconds, at every seal, when partitions go to another member, and on close.
    ``group_protocol`` is Kafka's "consumer" (default) or "classic".

    Raises UnknownStreamError where the stream does not exist.
    """

    def __init__(
        self,
        stream: str,
        *,
        group: str,
        config: Config | None = None,
        start: str | datetime = EARLIEST,
        commit_interval_s: float = 1.0,
        group_protocol: str = "consumer",
    ) -> None:
        begin = start_of(start)
        if group_protocol not in ("consumer", "classic"):
            raise ConfigError(f"group_protocol has to be 'consumer' or 'classic', not {group_protocol!r}")
        config = config or load_config()
        self.stream = config.stream(stream)
        self.group = group
        self._connection = config.connection
        self._commit_interval_s = commit_interval_s
        self._control = ControlLog(config.connection, self.stream)
        registry = RegistryClient(config.connection)
        unpacker = Unpacker(self.stream, registry, load_schema(self.stream.schema_path), self._find_shard)
        self._reading = Reading(
            config.connection,
            self.stream,
            group,
            self._control,
            unpacker,
            Finisher(config.connection),
            start=begin,
            protocol=group_protocol,
        )
        serve(config, "consumer")
        self._dead: DeadLetters | None = None
        self._pending: Unpacked | None = None
        self._committed_at = time.monotonic()
        self._closed = False
        self._stop = threading.Event()

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, timeout: float = 1.0) -> list[Record]:
        """The records of the next aggregate, at most ``timeout`` seconds waited for; empty if none came.

        Calling it again says that the records given before are handled; they are committed within the interval. Messages
        that cannot be decoded go to the dead letters.
        """
        self._settle(len(self._pending.records) if self._pending else 0)
        deadline = time.monotonic() + timeout
        while True:
            unpacked = self._next(max(0.0, deadline - time.monotonic()))
            if unpacked is None:
                return []
            if unpacked.kind is Kind.BAD:
                self._bury_message(unpacked)
                self._settle(0)
                continue
            return unpacked.records

    def __iter__(self) -> Iterator[Record]:
        """Records one by one, for ever (until ``stop``). A record counts as handled when the next one is asked for; one
        whose handling raised, or left the loop, does not, and comes again."""
        while not self._stop.is_set():
            handled = 0
            try:
                for record in self.read():
                    yield record
                    handled += 1
                    self._progress(handled)
            finally:
                self._settle(handled)

    def run(self, handler: Handler, *, retries: int = 3, max_records: int | None = None) -> int:
        """Call ``handler`` with every record, until ``stop`` (or SIGTERM, in the main thread). Returns the records handled.

        A handler that raises is called again, ``retries`` times at most, with backoff and jitter; then the record goes to
        the dead letters and the shard moves on.
        """
        handled = 0
        with self._stop_on_sigterm():
            while not self._stop.is_set() and (max_records is None or handled < max_records):
                records = self.read()
                for index, record in enumerate(records):
                    self._handle(handler, record, retries)
                    handled += 1
                    self._progress(index + 1)
                    if self._stop.is_set() or handled == max_records:
                        self._settle(index + 1)
                        break
        self.commit()
        return handled

    def stop(self) -> None:
        """Let iteration and ``run`` end after the current record. Safe from any thread and from signal handlers."""
        self._stop.set()

    def commit(self) -> None:
        """Commit what is handled, now."""
        self._reading.commit()
        self._committed_at = time.monotonic()

    def close(self) -> None:
        """Commit what is handled and leave the group. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        try:
            self._reading.commit()
        finally:
            self._reading.close()
            if self._dead is not None:
                self._dead.close()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def stats(self) -> ReaderStats:
        """Counters since the start."""
        return self._reading.stats

    # -- inside --------------------------------------------------------------------------------------------------------

    def _next(self, timeout_s: float) -> Unpacked | None:
        if self._closed:
            raise ClosedError("the consumer is closed")
        self._pending = self._reading.next(timeout_s)
        self._maybe_commit()
        return self._pending

    def _progress(self, records: int) -> None:
        """The first ``records`` of the aggregate are handled: a commit may say so, inside the aggregate."""
        if time.monotonic() >= self._committed_at + self._commit_interval_s and self._pending is not None:
            if records < len(self._pending.records):
                self._reading.done(records)
            self._maybe_commit()

    def _settle(self, records: int) -> None:
        """The first ``records`` of the aggregate given last are handled; the others will be given again."""
        if self._pending is not None:
            self._reading.done(records)
            self._reading.put_back()
            self._pending = None

    def _maybe_commit(self) -> None:
        if time.monotonic() >= self._committed_at + self._commit_interval_s:
            self._committed_at = time.monotonic()
            try:
                self._reading.commit()
            except RetryableError as error:
                log.warning("no commit for now: %s", error)

    def _handle(self, handler: Handler, record: Record, retries: int) -> None:
        first_ms = _now_ms()
        pause_s = BACKOFF_S_FIRST
        for attempt in range(1, retries + 2):
            try:
                handler(record)
                return
            except Exception as error:  # noqa: BLE001 - whatever the handler raises is the handler's; the record is kept
                if attempt <= retries and not self._stop.is_set():
                    log.info("handler failed (%s), attempt %d of %d", type(error).__name__, attempt, retries + 1)
                    self._stop.wait(pause_s * random.uniform(0.5, 1.0))
                    pause_s = min(pause_s * 2, BACKOFF_S_MAX)
                else:
                    self._bury_record(record, error, attempt, first_ms)
                    return

    def _bury_record(self, record: Record, error: Exception, attempts: int, first_ms: int) -> None:
        letter = DeadLetter(
            record.topic,
            record.partition,
            record.offset,
            record.index,
            type(error).__name__,
            str(error)[:TEXT_CHARS_MAX],
            attempts,
            first_ms,
            _now_ms(),
            self.group,
            record.schema_id,
            record.producer,
            record.seq,
            record.id,
            record.order.generation,
        )
        unpacked = self._pending
        fetched = unpacked.fetched if unpacked is not None else None
        self._letters().put(
            letter, record.key.encode(), fetched.value if fetched else None, fetched.headers if fetched else []
        )

    def _bury_message(self, unpacked: Unpacked) -> None:
        fetched, error, now = unpacked.fetched, unpacked.error, _now_ms()
        text = str(error)[:TEXT_CHARS_MAX]
        log.warning("%s[%d] at %d goes to the dead letters: %s", *fetched.place, fetched.offset, text)
        letter = DeadLetter(*fetched.place, fetched.offset, -1, type(error).__name__, text, 1, now, now, self.group)
        self._letters().put(letter, fetched.key, fetched.value, fetched.headers)

    def _letters(self) -> DeadLetters:
        if self._dead is None:
            self._dead = DeadLetters(self._connection, self.stream.dead_topic)
        return self._dead

    def _find_shard(self, shard_id: str) -> ShardMap:
        if shard_id not in self._control.map.shards:
            self._control.barrier()
        return self._control.map

    def _stop_on_sigterm(self) -> _OnSigterm:
        return _OnSigterm(self.stop)


class _OnSigterm:
    """Calls a function on SIGTERM while entered, where signals can be caught (the main thread)."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._previous: object = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, lambda *_: self._function())

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._previous)  # type: ignore[arg-type]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
