"""Chunks of rows as whole aggregates: cut by shard, in order, within the bounds; and receipts made only when asked for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from pipeline.model.keys import HASH_NAME, even_ranges, hash_key
from pipeline.model.shards import CREATED, Shard, ShardMap, shard_event
from pipeline.produce.aggregate import State
from pipeline.produce.columns import Columns, Receipts, chunks_of
from pipeline.produce.pack import Packer
from pipeline.produce.receipt import PendingReceipt
from pipeline.schema.columns import CONSTANT_ROWS, ColumnEncoder
from pipeline.schema.encode import EntryEncoder
from pipeline.schema.value_schema import parse_schema

pytest.importorskip("pyruhvro")
SCHEMA = parse_schema(
    {"type": "record", "name": "R", "fields": [{"name": "key", "type": "string"}, {"name": "number", "type": "int"}]}
)
ENCODE = EntryEncoder(SCHEMA).encode


def three_shards() -> ShardMap:
    shards = [Shard(f"s{index}", low, high, "t", index) for index, (low, high) in enumerate(even_ranges(3))]
    event = {"type": CREATED, "shards": [shard_event(s) for s in shards], "hash": HASH_NAME, "subject": "s"}
    return ShardMap().apply(event | {"ordering": "strict"}, 0)


def some_rows(count: int) -> list[dict[str, Any]]:
    return [{"key": f"key-{n * 7 % 13}", "number": n} for n in range(count)]


def columns(bytes_max: int = 100_000, records_max: int = 10_000) -> Columns:
    return Columns(ColumnEncoder(SCHEMA), bytes_max, records_max)


@pytest.mark.parametrize("table", [False, True])
def test_each_row_is_in_an_aggregate_of_its_shard_under_its_sequence(table: bool) -> None:
    rows, shard_map = some_rows(500), three_shards()
    chunk = pa.RecordBatch.from_pylist(rows, pa.schema({"key": pa.string(), "number": pa.int32()})) if table else rows
    pieces = columns(bytes_max=2_000, records_max=90).pieces(chunk, "key", shard_map, 5)
    assert pieces is not None
    seen: dict[int, bytes] = {}
    last: dict[str, int] = {}
    for piece in pieces:
        made = piece.aggregate(1000, 0)
        assert made.size_bytes <= 2_000
        assert made.count <= 90
        assert made.seqs == sorted(made.seqs)
        assert made.first_seq > last.get(made.shard, -1), "an order in which they may be put"
        last[made.shard] = made.last_seq
        for seq, body, hashed in zip(made.seqs, made.bodies, made.hash_keys, strict=True):
            assert shard_map.route(hashed).id == made.shard
            seen[seq] = body
    assert seen == {1000 + n: ENCODE(row["key"], None, 0, 5, None, row) for n, row in enumerate(rows)}


def test_keys_go_to_the_shards_of_the_map_that_is_given_also_when_it_is_another_than_before() -> None:
    one, three = columns(), three_shards()
    shards = [Shard("left", 0, 1 << 63, "t", 0), Shard("right", 1 << 63, 1 << 64, "t", 1)]
    event = {"type": CREATED, "shards": [shard_event(s) for s in shards], "hash": HASH_NAME, "subject": "s", "ordering": "strict"}
    for shard_map in (three, ShardMap().apply(event, 0), three):
        pieces = one.pieces(some_rows(100), "key", shard_map, 5)
        assert pieces is not None
        owners = {f"key-{n}": shard_map.route(hash_key(f"key-{n}")).id for n in range(13)}
        assert {piece.shard: len(piece.rows) for piece in pieces} == Counter(owners[row["key"]] for row in some_rows(100))


def test_long_keys_find_their_shards_and_are_not_kept() -> None:
    shard_map, rows = three_shards(), [{"key": f"{n}" * 1000, "number": n} for n in range(9)]
    cutting = columns()
    pieces = cutting.pieces(rows, "key", shard_map, 5)
    assert pieces is not None
    found = {rows[place]["key"]: piece.shard for piece in pieces for place in piece.rows}
    assert found == {row["key"]: shard_map.route(hash_key(row["key"])).id for row in rows}
    assert cutting._owners._known.cache_info().currsize == 0


def test_an_aggregate_may_have_more_rows_than_the_constants_made_beforehand() -> None:
    rows, key = some_rows(CONSTANT_ROWS + 5), "key-1"
    one_key = [row | {"key": key} for row in rows]
    pieces = columns(bytes_max=10_000_000, records_max=100_000).pieces(one_key, "key", three_shards(), 5)
    assert pieces is not None
    made = pieces[0].aggregate(0, 0)
    assert (len(pieces), made.count) == (1, len(rows))
    assert made.bodies[-1] == ENCODE(key, None, 0, 5, None, one_key[-1])


def test_the_records_of_a_block_can_be_packed_again_and_their_receipts_follow() -> None:
    pieces = columns().pieces(some_rows(40), "key", three_shards(), 5)
    assert pieces is not None
    made = pieces[1].aggregate(0, 0)
    seqs, bodies = made.seqs, made.bodies
    again = list(Packer(None).repack("s9", made.records(), 0))
    assert [one.seqs for one in again] == [[seq] for seq in seqs]
    assert [one.bodies[0] for one in again] == bodies
    again[3].acknowledge(8)
    assert made.resolve(3)[0].state is State.ACKNOWLEDGED


def test_rows_that_are_cut_too_unevenly_are_left_to_the_rows_way() -> None:
    rows = some_rows(400)
    for row in rows[:30]:
        row["key"] = "k" * 300
    shard_map = three_shards()
    assert columns(bytes_max=2_000).pieces(rows, "key", shard_map, 5) is None


def test_aggregates_come_close_to_their_limit_once_a_cut_told_how_large_rows_are() -> None:
    cutting, rows, shard_map = columns(bytes_max=2_000), [{"key": "k", "number": 1}] * 1_000, three_shards()
    first, second = cutting.pieces(rows, "key", shard_map, 5), cutting.pieces(rows, "key", shard_map, 5)
    assert first is not None
    assert second is not None
    assert max(piece.entries.ends[-1] for piece in first) < 1_200
    assert 1_700 < max(piece.entries.ends[-1] for piece in second) <= 2_000


def test_rows_that_grow_between_two_cuts_are_cut_again_within_the_limit() -> None:
    cutting, shard_map = columns(bytes_max=2_000), three_shards()
    small = [{"key": "k", "number": 1}] * 1_000
    grown = [{"key": "k", "number": 2**31 - 1}] * 1_000  # no longer text, so no larger an upper bound
    cutting.pieces(small, "key", shard_map, 5)
    for rows in (grown, small, grown):
        pieces = cutting.pieces(rows, "key", shard_map, 5)
        assert pieces is not None
        assert max(piece.entries.ends[-1] for piece in pieces) <= 2_000
        assert sorted(place for piece in pieces for place in piece.rows) == list(range(1_000))
        bodies = [body for piece in pieces for body in piece.aggregate(0, 0).bodies]
        assert bodies == [ENCODE("k", None, 0, 5, None, rows[0])] * 1_000


@pytest.mark.parametrize(
    "rows", [[{"key": None, "number": 1}], [{"key": "a", "number": "1"}], [{"key": "a"}], [["key", "number"]]]
)
def test_rows_that_do_not_fit_are_left_to_the_rows_way(rows: list[Any]) -> None:
    assert columns().pieces(rows, "key", three_shards(), 5) is None


def test_a_key_that_is_no_column_is_left_to_the_rows_way() -> None:
    assert columns().pieces(some_rows(3), "nothing", three_shards(), 5) is None
    table = pa.RecordBatch.from_pylist(some_rows(3), pa.schema({"key": pa.string(), "number": pa.int32()}))
    assert columns().pieces(table, "nothing", three_shards(), 5) is None


def test_few_rows_a_shard_are_not_worth_aggregates_of_their_own() -> None:
    assert not columns().worth(300, three_shards())
    assert columns().worth(3_000, three_shards())


def test_chunks_keep_the_order_and_are_bounded() -> None:
    table = pa.table({"n": range(100_000)})
    chunks = list(chunks_of(table, 99_999, 80_000))
    assert max(len(chunk) for chunk in chunks) <= 10_000
    assert [n for chunk in chunks for n in chunk.column("n").to_pylist()] == list(range(100_000))
    listed = list(chunks_of(iter(range(101)), 100, 1))
    assert [len(chunk) for chunk in listed] == [100, 1]
    assert list(chunks_of(pa.table({"n": pa.array([], pa.int64())}), 10, 100)) == []


def test_receipts_stand_in_the_order_of_the_rows() -> None:
    rows, shard_map = some_rows(100), three_shards()
    receipts = Receipts()
    pieces = columns().pieces(rows, "key", shard_map, 5)
    assert pieces is not None
    made = [piece.aggregate(0, 0) for piece in pieces]
    one_by_one = PendingReceipt((made[0], 0))
    receipts.add(one_by_one)
    receipts.add_chunk([(aggregate, piece.rows) for aggregate, piece in zip(made, pieces, strict=True)], len(rows))
    receipts.add(one_by_one)
    assert len(receipts) == 102
    assert [aggregate.seq_at(index) for aggregate, index in receipts[1:-1]] == list(range(100))
    assert receipts[0] == receipts[-1] == one_by_one
    for n, (aggregate, _) in enumerate(receipts[1:-1]):
        assert aggregate.shard == shard_map.route(hash_key(rows[n]["key"])).id
