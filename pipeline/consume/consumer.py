"""The consumer: records of a stream, in order per key, committed after they were handled. This file only wires.

    fetch → gate → unpack → drop repeats → handle (retry, dead letter) → checkpoint

Delivery is at least once: a record handled just before a crash comes again, with the same (producer, seq) and the same
``id``. Order: records of one partition key come in the order in which they were put, also across splits, merges and
rebalances. Not thread-safe: use one consumer per thread or process; Kafka's group protocol shares out the shards.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa

from pipeline.config import Config, load_config
from pipeline.consume.arrow import ArrowRows
from pipeline.consume.asynchronous import iterate, run_async
from pipeline.consume.burying import Burying
from pipeline.consume.counters import Counters, ReaderStats
from pipeline.consume.gating import CONTINUE, EARLIEST, STOP
from pipeline.consume.iterating import batches, chunks, records
from pipeline.consume.parts import BrokerParts, Parts
from pipeline.consume.pool import Handler, OnFailure, Policy, Pool
from pipeline.consume.reading import Reading
from pipeline.consume.rewind import To, rewind_over, start_of
from pipeline.consume.running import IN_FLIGHT_MAX, run
from pipeline.consume.tracks import Item
from pipeline.consume.unpack import Kind, Unpacker
from pipeline.errors import ClosedError, ConfigError, DecodeError, RetryableError
from pipeline.model.record import Record
from pipeline.model.shards import Place, ShardMap
from pipeline.observe.endpoint import serve
from pipeline.observe.health import HEALTH
from pipeline.schema.models import reader_of

log = logging.getLogger("headrace.consume")
REVOKE_WAIT_S = 10.0


class Consumer:
    """Reads a stream as a member of ``group``.

    ``start`` is where a group begins that is new to the stream: "earliest" (default), "latest", or a time (a datetime with
    its zone); ``seek`` and ``pipeline.rewind`` start a group over that is not. Positions are committed
    every ``commit_interval_s`` seconds, at every seal, when partitions go to another member, and on close.
    ``group_protocol`` is Kafka's "consumer" (default) or "classic". ``on_trimmed`` says what happens where retention removed
    records that the group had not read: "stop" (default) raises TrimmedError, "continue" counts them and goes on.
    ``stuck_after_s`` is how long one record may be handled before `/health` complains.
    ``model`` is a pydantic model or a dataclass: values are instances of it; one that does not fit goes to the dead letters.

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
        on_trimmed: Literal["stop", "continue"] = "stop",
        stuck_after_s: float = 60.0,
        model: type[Any] | None = None,
        parts: Parts | None = None,
    ) -> None:
        self._start = start_of(start)
        if group_protocol not in ("consumer", "classic"):
            raise ConfigError(f"group_protocol has to be 'consumer' or 'classic', not {group_protocol!r}")
        if on_trimmed not in (STOP, CONTINUE):
            raise ConfigError(f"on_trimmed has to be 'stop' or 'continue', not {on_trimmed!r}")
        self._typed = None if model is None else reader_of(model)
        config = config or load_config()
        self.stream = config.stream(stream)
        self.group = group
        self._protocol = group_protocol
        self._on_trimmed = on_trimmed
        self._stuck_after_s = stuck_after_s
        self._commit_interval_s = commit_interval_s
        self._parts = parts or BrokerParts(config.connection, self.stream)
        schema = self._parts.value_schema
        self._counters = Counters(self.stream.name, group)
        self._unpacker = Unpacker(self.stream, self._parts.registry, schema, self._find_shard, patient=False)
        self._burying = Burying(self._parts.letters, group, self._unpacker, self._counters)
        self._arrow = ArrowRows(schema)
        self._item: Item | None = None
        self._pool: Pool | None = None
        self._commit_at = time.monotonic() + commit_interval_s
        self._closed = False
        self._stop = threading.Event()
        self._reading = self._join()
        serve(config, "consumer")
        HEALTH.watch(self.problems)

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, timeout: float = 1.0) -> list[Record]:
        """The records of the next aggregate, at most ``timeout`` seconds waited for; empty if none came.

        Calling it again says that the records given before are handled; they are committed within the interval. Messages
        that cannot be decoded go to the dead letters.
        """
        if self._item is not None:
            self._reading.done(self._item, self._item.total)
        self._item = self._next(timeout)
        return self._item.unpacked.records if self._item is not None else []

    def __iter__(self) -> Iterator[Record]:
        """Records one by one, for ever (until ``stop``). A record counts as handled when the next one is asked for; one
        whose handling raised, or left the loop, does not, and comes again."""
        return records(self)

    def chunks(self, records_max: int | None = None) -> Iterator[list[Record]]:
        """Lists of records: of one aggregate each, cut to ``records_max``. A chunk counts as handled when the next one is
        asked for; one whose handling raised, or left the loop, comes again whole."""
        return chunks(self, records_max)

    def arrow(self) -> Iterator[pa.RecordBatch]:
        """pyarrow record batches, one per aggregate: the value's columns, then ``_meta`` as in bronze tables. Decoded by column
        where pyruhvro is installed and the schema is flat. A batch counts as handled when the next one is asked for.

        Raises SchemaError where the stream's schema has types that no column can hold (unions of several types).
        """
        return batches(self)

    def run(
        self,
        handler: Handler,
        *,
        retries: int = 3,
        max_records: int | None = None,
        workers: int = 1,
        on_failure: OnFailure = "dead_letter",
        in_flight_max: int = IN_FLIGHT_MAX,
        stop_timeout_s: float = 10.0,
    ) -> int:
        """Call ``handler`` with every record, in threads, until ``stop`` (or SIGTERM, in the main thread). Returns the number
        of records handled.

        ``workers`` handlers run side by side, on different keys: each key's records come one after another. Commits never pass
        an unfinished record; at most ``in_flight_max`` records are under way, so a slow key stops the others only then.
        A handler that raises is called again, ``retries`` times at most, with backoff and jitter; then by ``on_failure``
        the record goes to the dead letters, or ``run`` stops with HandlerError, or its key is blocked: the record is tried on
        and on, and later records of its key wait. Stopping waits ``stop_timeout_s`` at most for the records under way.
        """
        if on_failure not in ("dead_letter", "stop", "block_key"):
            raise ConfigError(f"on_failure has to be 'dead_letter', 'stop' or 'block_key', not {on_failure!r}")
        if workers < 1 or in_flight_max < 1 or retries < 0:
            raise ConfigError("run needs at least one worker, one record in flight and no negative number of retries")
        self._let_go()
        self._pool = Pool(handler, workers, Policy(retries, on_failure), self._burying.record, self._counters)
        try:
            return run(self, self._pool, max_records=max_records, in_flight_max=in_flight_max, stop_timeout_s=stop_timeout_s)
        finally:
            self._pool = None

    async def arun(
        self,
        handler: Callable[[Record], Awaitable[object]],
        *,
        retries: int = 3,
        max_records: int | None = None,
        workers: int = 8,
        on_failure: OnFailure = "dead_letter",
    ) -> int:
        """``run`` for coroutines: the handlers run in the caller's event loop, everything else beside it."""

        def go(plain: Handler) -> int:
            return self.run(plain, retries=retries, max_records=max_records, workers=workers, on_failure=on_failure)

        return await run_async(handler, go, self.stop)

    def __aiter__(self) -> AsyncIterator[Record]:
        """``async for record in consumer``: as the plain loop, without blocking the event loop."""
        return iterate(self)

    # -- steering ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let iteration and ``run`` end after the current record. Safe from any thread and from signal handlers."""
        self._stop.set()

    def seek(self, to: To) -> None:
        """Start the group over: "earliest", "latest", the first records at or after a time (a datetime with its zone), or
        offsets by partition. Parents come first: descendants of a shard that goes back go back with it. This consumer has to
        be the group's only member: raises StopError otherwise, and goes on where it was."""
        self._item = None
        self._reading.close()
        try:
            rewind_over(self._parts, self.stream.topic, self.group, to)
        finally:
            self._reading = self._join()

    def commit(self) -> None:
        """Commit what is handled, now."""
        self._reading.commit()
        self._commit_at = time.monotonic() + self._commit_interval_s

    def close(self) -> None:
        """Commit what is handled and leave the group. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        try:
            self._reading.close()
        finally:
            self._burying.close()
            self._parts.close()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def problems(self) -> list[str]:
        """What keeps this consumer from getting on, in sentences; none while all is well. Safe from any thread; `/health` of
        the process's metrics endpoint asks the same."""
        if self._closed:
            return []
        pool = self._pool
        return self._reading.problems(pool.longest_s() if pool is not None else 0.0)

    @property
    def stats(self) -> ReaderStats:
        """Counters since the start."""
        return self._counters.stats

    # -- inside --------------------------------------------------------------------------------------------------------

    def _join(self) -> Reading:
        return Reading(
            self._parts, self.group, self._unpacker, self._counters,
            start=self._start, protocol=self._protocol, on_trimmed=self._on_trimmed, before_revoke=self._come_to_rest,
            dedup_window_ms=self.stream.dedup_window_ms, stuck_after_s=self._stuck_after_s,
        )  # fmt: skip

    def _next(self, timeout_s: float) -> Item | None:
        """The next message with records to handle; those that cannot be decoded go to the dead letters."""
        if self._closed:
            raise ClosedError("the consumer is closed")
        deadline = time.monotonic() + timeout_s
        while True:
            self._maybe_commit()  # not after: waiting for it serves the group, and the message may go to another member
            item = self._reading.next(max(0.0, deadline - time.monotonic()))
            if item is None:
                return None
            try:
                if item.unpacked.kind is Kind.BAD:
                    self._burying.message(item.unpacked)
                elif self._fitting(item):
                    return item
            except BaseException:
                self._reading.put_back(item.track)
                raise
            self._reading.done(item, item.total)

    def _fitting(self, item: Item) -> bool:
        """Make the values instances of the model; records that do not fit are buried. False where none is left."""
        if self._typed is None or not self._unpacker.with_values:
            return True
        unfit, unpacked, now_ms = [], item.unpacked, time.time_ns() // 1_000_000
        for record in unpacked.records:
            try:
                record.value = None if record.value is None else self._typed(record.value)
            except DecodeError as error:
                self._burying.record(unpacked, record, error, 1, now_ms)
                unfit.append(record)
        if unfit:
            unpacked.leave_out(unfit)
            item.total = len(unpacked.kept)
        return item.total > 0

    def _let_go(self) -> None:
        """Records that ``read`` gave and that were not said to be handled come again."""
        if self._item is not None:
            self._reading.put_back(self._item.track)
            self._item = None

    def _maybe_commit(self) -> None:
        now = time.monotonic()
        if now >= self._commit_at:
            self._commit_at = now + self._commit_interval_s
            try:
                self._reading.commit()
            except RetryableError as error:
                log.warning("no commit for now: %s", error)

    def _come_to_rest(self, places: set[Place]) -> None:
        """Before partitions go to another member: what their handlers are at now is waited for, the rest is let go."""
        if self._pool is None:
            return
        if not self._pool.rest(places, REVOKE_WAIT_S):
            log.warning("a handler still runs after %g s; its record comes again in another member", REVOKE_WAIT_S)
        self._pool.progress()

    def _find_shard(self, shard_id: str) -> ShardMap:
        control = self._parts.control
        return control.map if shard_id in control.map.shards else control.barrier()
