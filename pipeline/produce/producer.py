"""The producer: put records, get receipts. This file only wires.

    put → encode (pipeline/schema) → route → aggregate (pack) → send → settle → receipt

Order: records of one partition key are in the stream in the order in which ``put`` returned, across retries, client
failures and reshards. Threads: every method is safe from any thread; between threads, the order is that in which their
puts took the producer's lock.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import time_ns
from types import TracebackType
from typing import Any

import pyarrow as pa

from pipeline.compiled import core
from pipeline.config import Config, load_config
from pipeline.errors import BrokerUnavailableError, BufferFullError, ClosedError
from pipeline.kafka.registry_client import RegistryClient
from pipeline.kafka.topics import Topics
from pipeline.model.keys import HASH_SPACE, with_hash
from pipeline.model.keys import hash_key as hash_key_of
from pipeline.model.record import Receipt
from pipeline.model.salting import salt_of
from pipeline.observe.endpoint import serve
from pipeline.observe.tracing import active_context, traced, with_trace
from pipeline.produce.aggregate import Aggregate
from pipeline.produce.awaiting import Awaiting
from pipeline.produce.claiming import Claiming
from pipeline.produce.columns import Columns
from pipeline.produce.expire import ExpiredLoop
from pipeline.produce.many import put_many
from pipeline.produce.numbering import Numbering
from pipeline.produce.options import overridden
from pipeline.produce.pack import Lane
from pipeline.produce.receipt import PendingReceipt
from pipeline.produce.salting import Salting
from pipeline.produce.send import SendLoop
from pipeline.produce.settle import SettleLoop
from pipeline.produce.stamping import Messages
from pipeline.produce.state import RECORD_OVERHEAD_BYTES, ProducerState, ProducerStats
from pipeline.reshard.control_log import open_stream
from pipeline.reshard.resharder import Finisher
from pipeline.schema.columns import ColumnEncoder
from pipeline.schema.encode import EntryEncoder
from pipeline.schema.entry import salted_entry
from pipeline.schema.envelope import envelope_text
from pipeline.schema.program import compiled_encoder
from pipeline.schema.table_columns import load_stream_schema
from pipeline.schema.value_schema import ValueSchema

ENVELOPE_BYTES_MAX = 64  # frame, array counts and relative sequence of a record that goes alone


class Producer:
    """Puts records into a stream.

    ``stream`` is a name in headrace.yml (``config`` takes another Config); the stream is created on the cluster if it is
    not there. ``name`` makes the producer a named one: a newer producer of the same name fences this one (FencedError),
    and records put with ``position`` keep their dedup ids over restarts. ``overrides`` replace options of the stream's
    ``aggregation`` and ``producer`` sections, such as ``linger_ms=5``.

    Raises UnknownStreamError, SchemaError, BrokerUnavailableError or RegistryUnavailableError at once where the stream
    cannot be written to. Memory is bounded by ``buffer_bytes_max``.
    """

    def __init__(self, stream: str, *, config: Config | None = None, name: str | None = None, **overrides: Any) -> None:
        config = config or load_config()
        settings = overridden(config.stream(stream), overrides)
        schema = load_stream_schema(settings.avro_schema, config.bronze_of(stream))
        self._encode = EntryEncoder(schema).encode
        self._registry = RegistryClient(config.connection)
        topics = Topics(config.connection)
        control = open_stream(config.connection, settings, topics)
        try:
            value_id = self._registry.register(schema.full_name, schema.text)
            schema_id = self._registry.register(settings.subject, envelope_text(schema))
        except BaseException:
            control.close()
            raise
        self.stream = settings
        self.name = name or uuid.uuid4().hex
        self.incarnation = control.claim(name) if name else 0
        self._state = state = ProducerState(settings, control.map)
        self._numbering = Numbering(state, self.incarnation, name is not None)
        self._record_bytes_max = settings.producer.message_bytes_max - ENVELOPE_BYTES_MAX
        self._lock, self._lanes = state.lock, state.lanes
        state.packer.bytes_max = self._bytes_max = min(state.packer.bytes_max, self._record_bytes_max)
        self._index_max = state.packer.records_max - 1  # the record that fills an aggregate goes the long way
        self._timeout_s = settings.producer.put_timeout_s
        self._traced = traced()
        self._compile_put(schema)
        self._claiming = Claiming(state, settings, schema_id, self._numbering, self._record_bytes_max)
        self._columns = Columns(ColumnEncoder(schema), state.packer.bytes_max, state.packer.records_max)
        messages = Messages(schema_id, value_id, by_key=settings.aggregation is None)
        self._send = SendLoop(state, config.connection, stream, messages, self.name, self.incarnation)
        finish = partial(Finisher(config.connection, schema_id).finish, config.connection, settings)
        salting = Salting(self.name, self._send.skew) if settings.ordering == "salted" else None
        self._settle = SettleLoop(state, control, self.name, self.incarnation, finish, salting)
        self._awaiting = Awaiting(state.settled, state.buffer_full)
        self._expired = ExpiredLoop(state, config.connection, settings, schema_id, self.name, self.incarnation)
        self._closed = False
        serve(config, "producer")
        self._send.start()
        self._settle.start()
        self._expired.start()

    # -- putting -------------------------------------------------------------------------------------------------------

    def put(
        self,
        value: Mapping[str, Any] | bytes | None,
        key: str,
        *,
        id: str | None = None,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
        hash_key: int | None = None,
        position: int | None = None,
        timeout: float | None = None,
    ) -> PendingReceipt:
        """Take a record; its receipt resolves once it is acknowledged.

        ``value`` is a dict of the schema's fields (or a model's instance), or bytes where the schema has a single field and it
        is of bytes; None is a tombstone. ``id`` is an explicit dedup id, ``hash_key`` overrides the key's hash, ``position`` is
        the record's place in its source (rising; named producers only): put again after a crash, it makes the same dedup
        id. Waits at most ``timeout`` seconds for room. A sampled OpenTelemetry span that is active goes along in the headers.

        Raises SchemaMismatchError, RecordTooLargeError, BufferFullError, ClosedError, or what stopped the producer; the
        record was not taken then, and nothing else is affected.
        """
        if hash_key is not None:
            headers = with_hash(headers, check_hash_key(hash_key))
        if self._traced is not None and self._traced():
            headers = with_trace(headers)
        body = self._encode(key, id, 0, time_ns() // 1_000_000, headers, value)
        state = self._state
        with self._lock:
            lane = self._lanes.get(key)
            if lane is not None and position is hash_key is None:
                # Most records end here: there is room, and their shard's aggregate is open. The same as locked_put does.
                aggregate = lane.open
                entries = aggregate.entries
                index = entries.count
                seq = state.next_seq
                free_bytes = state.free_bytes - len(body) - RECORD_OVERHEAD_BYTES
                if (
                    entries.size_bytes + len(body) < self._bytes_max
                    and index < self._index_max
                    and free_bytes >= 0
                    and seq < state.full_seq
                ):
                    receipt = PendingReceipt((aggregate, index))
                    entries.add(seq - entries.first_seq, body)
                    state.free_bytes = free_bytes
                    state.next_seq = seq + 1
                    return receipt
            if len(body) <= self._record_bytes_max:
                return self._locked_put(key, id, hash_key, body, position, self._timeout_s if timeout is None else timeout)
        hashed = hash_key_of(key) if hash_key is None else hash_key
        stub = self._encode(key, id, 0, 0, None, None)
        timeout_s = self._timeout_s if timeout is None else timeout
        return PendingReceipt(self._claiming.put(body, stub, hashed, position, timeout_s))

    async def aput(
        self,
        value: Mapping[str, Any] | bytes | None,
        key: str,
        *,
        id: str | None = None,
        headers: Sequence[tuple[str, bytes | None]] | None = None,
        hash_key: int | None = None,
        position: int | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """``put`` for coroutines: wait for room without blocking the event loop, then until the record is acknowledged.

        Order is that in which the coroutines started (``asyncio.create_task`` and ``gather`` start them in theirs), also
        while they wait for room. Raises what ``put`` and its receipt raise. A coroutine that is cancelled after its
        record was taken does not take it back.
        """
        awaiting = self._awaiting
        deadline = time.monotonic() + (self._timeout_s if timeout is None else timeout)
        async with awaiting.turn(deadline):  # so those that wait for room keep their order
            while True:
                try:
                    receipt = self.put(
                        value, key, id=id, headers=headers, hash_key=hash_key, position=position, timeout=0
                    )
                    break
                except BufferFullError:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise
                await awaiting.woken(left)
        return await awaiting.settled(receipt)

    def put_many(
        self,
        rows: Iterable[Mapping[str, Any]] | pa.Table | pa.RecordBatch,
        *,
        key: str | None = None,
        position: int | None = None,
        timeout: float | None = None,
    ) -> Sequence[PendingReceipt]:
        """Take many records: dicts, or the rows of a pyarrow table. ``key`` names the column of the partition key (default:
        the stream's ``key``); ``position`` is the first row's place in its source; ``timeout`` counts for each chunk.

        Many rows of flat records are encoded by columns, if the extra ``columns`` is installed and no sampled span is active:
        then they are aggregates of their own, which wait for no linger.

        Raises as ``put`` does, at the first row that fails: the rows before it were taken.
        """
        return put_many(self, rows, key, position, timeout)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything put so far is acknowledged or has failed. Raises BrokerUnavailableError after ``timeout``
        seconds (what is left stays on its way), or what stopped the producer."""
        state = self._state
        deadline = None if timeout is None else time.monotonic() + timeout
        with state.lock:
            state.locked_seal_all()
            upto = self._numbering.locked_last_seq
            while True:
                if state.failure is not None:
                    raise state.failure
                lowest = state.locked_lowest_seq()
                if lowest is None or lowest > upto:
                    return
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise BrokerUnavailableError(
                        f"{state.buffered_records:,} records were not acknowledged within {timeout:g} s; they are still on "
                        "their way: flush again, or check the broker (`headrace status`)"
                    )
                state.settled.locked_wait(left)

    def close(self, timeout: float = 30.0) -> None:
        """Flush for at most ``timeout`` seconds and stop. Receipts still open then fail with ClosedError: their records may
        or may not be in the stream. Raises the error that left records unacknowledged. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        state = self._state
        problem: Exception | None = None
        with state.lock:
            already_failed = state.failure is not None
        try:
            if not already_failed:
                self.flush(timeout)
        except Exception as error:  # noqa: BLE001 - whatever it is, the receipts have to resolve before it goes on
            problem = error
        with state.lock:
            state.locked_close()
            if problem is not None or state.failure is not None:
                state.locked_stop(ClosedError(f"closed before the broker acknowledged ({problem}): the outcome is unknown"))
            state.work.notify_all()
            state.reported.notify_all()
            state.put_aside.notify_all()
        # With a broker that does not answer they are left to themselves: they end when their calls do, and report nothing.
        patience_s = 10.0 if problem is None else 0.5
        self._send.join(patience_s)
        self._settle.join(patience_s)
        if problem is not None:
            raise problem

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- seeing --------------------------------------------------------------------------------------------------------

    @property
    def acknowledged_position(self) -> int:
        """Everything put at or below this position (or own sequence) is acknowledged or has failed; -1 at first. Store it:
        after a crash, go on behind it."""
        with self._state.lock:
            lowest = self._state.locked_lowest_seq()
            return self._numbering.locked_last_seq if lowest is None else min(lowest - 1, self._numbering.locked_last_seq)

    @property
    def stats(self) -> ProducerStats:
        """Counters since the start."""
        state = self._state
        with state.lock:
            stats = state.stats
            stats.records_put = stats.records_acknowledged + stats.records_failed + state.buffered_records
            return replace(stats)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _compile_put(self, schema: ValueSchema) -> None:
        """Let compiled code take most records, where it was built; ``put`` takes the others."""
        encoder = compiled_encoder(schema)
        if core is None or encoder is None or self._index_max < 1 or type(self).put is not Producer.put:
            return
        self.put = core.Putter(  # type: ignore[method-assign]
            self.put,
            encoder,
            self._state,
            self._lanes,
            Lane,
            Aggregate,
            self._lock,
            PendingReceipt,
            active_context(),
            self._traced,
            self._bytes_max,
            self._state.packer.records_max,
            RECORD_OVERHEAD_BYTES,
        )

    def _locked_put(
        self, key: str, id: str | None, hashed: int | None, body: bytes, position: int | None, timeout_s: float
    ) -> PendingReceipt:
        """``put`` with every check and every rare case."""
        state = self._state
        seq = self._numbering.locked_wait_for_room(position, len(body) + RECORD_OVERHEAD_BYTES, 1, timeout_s)
        salted = state.settled.shard_map.salts.get(key) if hashed is None else None
        if salted is not None:
            salt = salt_of(f"{self.name}-{seq}" if id is None else id, salted.count)
            return PendingReceipt(state.locked_put(key, None, salted_entry(body, salt), seq, salt))
        if position is None and hashed is None:
            state.locked_remember(key)
        return PendingReceipt(state.locked_put(key, hashed, body, seq))


def check_hash_key(hashed: int) -> int:
    if not 0 <= hashed < HASH_SPACE:
        raise ValueError(f"hash_key has to be in [0, 2**64), not {hashed}")
    return hashed
