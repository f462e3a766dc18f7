"""Many records at once: chunks of rows as columns, cut by shard, encoded by pyruhvro, put as whole aggregates.

No Python object is made per record, not even a receipt: ``Receipts`` makes those when it is asked for them.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.model.keys import hash_key
from pipeline.model.shards import Shard, ShardMap
from pipeline.produce.aggregate import Aggregate
from pipeline.produce.entries import Block
from pipeline.produce.receipt import PendingReceipt
from pipeline.schema.columns import ColumnEncoder, Entries

CHUNK_ROWS_MAX = 32_768
ROW_BYTES = 1_024  # a chunk has at most as many rows as would fit into the buffer with this size each
# Fewer rows a shard than this make aggregates too small to be worth it: they go the way of `put`.
SHARD_ROWS_MIN = 256
_SPARE = 1.03  # pieces of the next cut may be a little larger
KEYS_KNOWN_MAX = 65_536  # of which the owner is remembered, so that a key is not hashed in every chunk
KEY_BYTES_KNOWN = 256  # on average; longer ones are hashed again


@dataclass(slots=True)
class Piece:
    """Rows of one shard that make one aggregate: places in the chunk (rising) and encoded entries."""

    shard: str
    rows: memoryview
    entries: Entries

    def aggregate(self, first_seq: int, now_ms: int) -> Aggregate:
        """The aggregate, where the chunk's row 0 has sequence ``first_seq``."""
        block = Block(self.entries.body, self.entries.ends, self.rows, first_seq + self.rows[0])
        return Aggregate(self.shard, now_ms, entries=block)


class Columns:
    """Cuts chunks for one producer. Holds no lock and no state of the producer's. Safe from many threads.

    Rows are cut before their size is known. It is first taken for the most that it can be, and then for what part of that the
    largest piece of the last cut was: so aggregates come close to their limit."""

    def __init__(self, encoder: ColumnEncoder, bytes_max: int, records_max: int) -> None:
        self._encoder = encoder
        self._bytes_max = bytes_max
        self._records_max = records_max
        self._owners = _Owners(ShardMap())
        self._part = 1.0

    def worth(self, rows: int, shard_map: ShardMap) -> bool:
        return self._encoder.usable and rows >= SHARD_ROWS_MIN * len(shard_map.leaves)

    def pieces(
        self, chunk: pa.RecordBatch | Sequence[Any], key: str, shard_map: ShardMap, timestamp_ms: int
    ) -> list[Piece] | None:
        """The chunk as aggregates, in an order in which they may be put; None where its rows have to go one by one."""
        if isinstance(chunk, pa.RecordBatch):
            columns, keys = self._encoder.of_table(chunk), _keys_of_table(chunk, key)
        else:
            columns = self._encoder.of_rows(chunk)
            keys = None if columns is None else _keys_of_rows(chunk, key)
        if columns is None or keys is None:
            return None
        owning = self._owners
        if owning.leaves != shard_map.leaves:
            owning = self._owners = _Owners(shard_map)
        owners = owning.of(keys)
        order = pc.sort_indices(owners)  # stable: a shard's rows stay in their order
        counts = pc.value_counts(owners.take(order))
        columns, keys = [column.take(order) for column in columns], keys.take(order)
        rows = order.cast(pa.int32())
        pieces: list[Piece] = []
        start = 0
        for owner, count in zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True):
            part = [column.slice(start, count) for column in columns]
            cut = self._cut(shard_map.leaves[owner], part, keys.slice(start, count), rows.slice(start, count), timestamp_ms)
            if cut is None:
                return None
            pieces += cut
            start += count
        return pieces

    def _cut(
        self, shard: Shard, columns: list[pa.Array], keys: pa.Array, rows: pa.Array, timestamp_ms: int
    ) -> list[Piece] | None:
        """One shard's rows in pieces within the bounds; None if they are of too different sizes for an even cut."""
        count, size_max = len(keys), self._encoder.bytes_max(columns, keys)
        for part in dict.fromkeys((self._part, 1.0)):
            number = min(count, max(math.ceil(size_max * part / self._bytes_max), -(-count // self._records_max)))
            pieces: list[Piece] = []
            for index in range(number):
                start, end = count * index // number, count * (index + 1) // number
                mine = rows.slice(start, end - start)
                relative = pc.subtract(mine, mine[0])
                values = [column.slice(start, end - start) for column in columns]
                entries = self._encoder.encode(values, keys.slice(start, end - start), relative, timestamp_ms)
                if entries.ends[-1] > self._bytes_max:
                    break
                places = memoryview(mine.buffers()[1]).cast("i")[mine.offset : mine.offset + len(mine)]
                pieces.append(Piece(shard.id, places, entries))
            else:
                largest = max(piece.entries.ends[-1] for piece in pieces)
                self._part = min(1.0, _SPARE * largest * number / size_max)
                return pieces
        return None


def chunks_of(
    rows: Iterable[Any] | pa.Table | pa.RecordBatch, rows_max: int, bytes_max: int
) -> Iterator[pa.RecordBatch | list[Any]]:
    """Chunks of at most ``rows_max`` rows, in order; of a table about ``bytes_max`` bytes each."""
    if isinstance(rows, pa.Table | pa.RecordBatch):
        count = max(1, min(rows_max, rows.num_rows * bytes_max // max(rows.nbytes, 1)))
        table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        for start in range(0, table.num_rows, count):
            yield from table.slice(start, count).combine_chunks().to_batches()
        return
    each = iter(rows)
    while chunk := list(islice(each, rows_max)):
        yield chunk


def _keys_of_table(chunk: pa.RecordBatch, key: str) -> pa.Array | None:
    if key not in chunk.schema.names:
        return None
    column = chunk.column(key)
    kind = column.type
    if column.null_count or not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        return None
    return column.cast(pa.string())


def _keys_of_rows(chunk: Sequence[Any], key: str) -> pa.Array | None:
    keys = [row.get(key) for row in chunk]
    return pa.array(keys, pa.string()) if set(map(type, keys)) == {str} else None


class _Owners:
    """Which leaf of a shard map, by its number, owns each key of a chunk."""

    def __init__(self, shard_map: ShardMap) -> None:
        self.leaves = shard_map.leaves
        self._route = shard_map.route
        self._numbers = {leaf.id: number for number, leaf in enumerate(shard_map.leaves)}
        self._known = lru_cache(KEYS_KNOWN_MAX)(self._owner)

    def of(self, keys: pa.Array) -> pa.Array:
        encoded = keys.dictionary_encode()
        distinct = encoded.dictionary
        owner = self._known if distinct.nbytes <= KEY_BYTES_KNOWN * len(distinct) else self._owner
        return pa.array(map(owner, distinct.to_pylist()), pa.int32()).take(encoded.indices)

    def _owner(self, key: str) -> int:
        return self._numbers[self._route(hash_key(key)).id]


class Receipts(Sequence[PendingReceipt]):
    """The receipts of a ``put_many``, in the order of its rows; each is made when it is asked for, so that the garbage collector
    has not to look at all of them again and again."""

    def __init__(self) -> None:
        self._aggregates: list[Aggregate] = []
        self._indexes = array("I")
        self._later: list[tuple[Aggregate, memoryview, int]] = []
        self._length = 0

    def add(self, receipt: PendingReceipt) -> None:
        if self._later:
            self._make()
        aggregate, index = receipt
        self._aggregates.append(aggregate)
        self._indexes.append(index)
        self._length += 1

    def add_chunk(self, aggregates: Sequence[tuple[Aggregate, memoryview]], rows: int) -> None:
        """A chunk's aggregates, each with the places of its records in the chunk."""
        self._later += [(aggregate, places, self._length) for aggregate, places in aggregates]
        self._length += rows

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> PendingReceipt: ...

    @overload
    def __getitem__(self, index: slice) -> list[PendingReceipt]: ...

    def __getitem__(self, index: int | slice) -> PendingReceipt | list[PendingReceipt]:
        self._make()
        if isinstance(index, slice):
            return [PendingReceipt(pair) for pair in zip(self._aggregates[index], self._indexes[index], strict=True)]
        return PendingReceipt((self._aggregates[index], self._indexes[index]))

    def _make(self) -> None:
        before = len(self._aggregates)
        blank: list[Any] = [None] * (self._length - before)
        self._aggregates += blank
        self._indexes.frombytes(bytes(self._indexes.itemsize * len(blank)))
        for aggregate, places, start in self._later:
            for index, place in enumerate(places):
                self._aggregates[start + place] = aggregate
                self._indexes[start + place] = index
        self._later.clear()
