"""``put_many``: chunks of rows, each as whole aggregates where its columns can be encoded in one go, else row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import time_ns
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.compiled import core
from pipeline.errors import ConfigError, SchemaMismatchError
from pipeline.produce.columns import CHUNK_ROWS_MAX, ROW_BYTES, Receipts, chunks_of
from pipeline.produce.state import RECORD_OVERHEAD_BYTES, now_ms

if TYPE_CHECKING:
    from pipeline.produce.producer import Producer

COMPILED = () if core is None else core.Putter


def put_many(
    producer: Producer,
    rows: Iterable[Mapping[str, Any]] | pa.Table | pa.RecordBatch,
    key: str | None,
    position: int | None,
    timeout: float | None,
) -> Receipts:
    """See ``Producer.put_many``."""
    column = key or producer.stream.key
    if column is None:
        raise ConfigError(f"put_many needs key=, the column of the partition key (or `key:` in stream {producer.stream.name})")
    receipts = Receipts()
    limits = producer._state.limits
    rows_max = max(1, min(CHUNK_ROWS_MAX, limits.buffer_records_max // 2, limits.buffer_bytes_max // ROW_BYTES))
    for chunk in chunks_of(rows, rows_max, limits.buffer_bytes_max // 8):
        at = None if position is None else position + len(receipts)
        # Faster than to make columns of dicts; positions are known to the Python put alone, which is slower than columns.
        by_row = at is None and isinstance(chunk, list) and isinstance(producer.put, COMPILED)
        if by_row or not _put_columns(producer, chunk, column, at, timeout, receipts):
            each = chunk.to_pylist() if isinstance(chunk, pa.RecordBatch) else chunk
            for index, row in enumerate(each):
                place = None if at is None else at + index
                receipts.add(producer.put(row, _key_of(row, column), position=place, timeout=timeout))
    return receipts


def _put_columns(
    producer: Producer,
    chunk: pa.RecordBatch | list[Any],
    column: str,
    position: int | None,
    timeout: float | None,
    receipts: Receipts,
) -> bool:
    """Put a chunk as whole aggregates. False where its rows have to go one by one."""
    state, columns, rows = producer._state, producer._columns, len(chunk)
    if producer._traced is not None and producer._traced():
        return False  # each row carries the span
    while True:
        shard_map = state.settled.shard_map
        if shard_map.salts or not columns.worth(rows, shard_map):
            return False
        pieces = columns.pieces(chunk, column, shard_map, time_ns() // 1_000_000)
        if pieces is None:
            return False
        size_bytes = sum(piece.entries.ends[-1] for piece in pieces) + rows * RECORD_OVERHEAD_BYTES
        if size_bytes > state.limits.buffer_bytes_max:
            return False
        timeout_s = state.limits.put_timeout_s if timeout is None else timeout
        with state.lock:
            first_seq = producer._numbering.locked_wait_for_room(position, size_bytes, rows, timeout_s)
            if state.settled.shard_map.leaves != shard_map.leaves:
                continue  # resharded meanwhile
            aggregates = [piece.aggregate(first_seq, now_ms()) for piece in pieces]
            state.locked_put_aggregates(aggregates, first_seq + rows, size_bytes, rows)
            receipts.add_chunk([(made, piece.rows) for made, piece in zip(aggregates, pieces, strict=True)], rows)
            return True


def _key_of(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None:
        raise SchemaMismatchError(column, "the partition key is missing")
    return str(value)
