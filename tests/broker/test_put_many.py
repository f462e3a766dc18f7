"""put_many on a real broker: by rows and by columns, the same records in the same order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from pipeline import Producer
from pipeline.errors import BufferFullError, SchemaMismatchError
from pipeline.produce.entries import Block
from tests.broker.test_producer import order, raw_messages, read_entries

Make = Callable[..., Any]
KEYS = 7


def some_orders(count: int) -> list[dict[str, Any]]:
    return [order(n, item=f"item-{n % KEYS}") for n in range(count)]


@pytest.mark.parametrize("form", ["few dicts", "dicts", "generator", "table"])
def test_every_row_arrives_once_in_the_order_of_its_key(order_config: Make, form: str) -> None:
    config, stream = order_config(shards=2)
    rows = some_orders(60 if form == "few dicts" else 3_000)
    given: Any = {"table": pa.Table.from_pylist(rows), "generator": (row for row in rows)}.get(form, rows)
    with Producer(stream, config=config) as producer:
        first = producer.put(order(-1, "item-0"), key="item-0")
        receipts = producer.put_many(given)
        last = producer.put(order(-2, "item-0"), key="item-0")
        producer.flush(30)
        assert [r.result(0).seq for r in receipts] == list(range(1, len(rows) + 1))
        assert first.result(0).order < receipts[0].result(0).order < last.result(0).order
        assert producer.stats.records_put == producer.stats.records_acknowledged == len(rows) + 2
        assert producer._state.buffered_bytes == producer._state.buffered_records == 0
    entries = read_entries(config, stream, 2)
    for key in range(KEYS):
        numbers = [e["value"]["number"] for e in entries if e["key"] == f"item-{key}" and e["value"]["number"] >= 0]
        assert numbers == list(range(key, len(rows), KEYS))
    if form == "table":
        assert len(raw_messages(config.connection.bootstrap, stream, 2)) <= 6, "whole aggregates, not one a record"


@pytest.mark.parametrize("count", [30, 2_000])
def test_the_rows_before_one_that_fails_are_taken(order_config: Make, count: int) -> None:
    config, stream = order_config(shards=1)
    rows = some_orders(count)
    rows[20]["number"] = "many"
    with Producer(stream, config=config) as producer:
        with pytest.raises(SchemaMismatchError, match="number"):
            producer.put_many(rows)
        producer.flush(30)
        assert producer.stats.records_acknowledged == 20


def test_a_row_without_its_key_is_refused(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config) as producer, pytest.raises(SchemaMismatchError, match="partition key"):
        producer.put_many([order(1) | {"item": None}])


def test_positions_of_a_table_go_on_from_its_first_row(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, name="table") as producer:
        receipts = producer.put_many(pa.Table.from_pylist(some_orders(1_000)), position=5_000)
        with pytest.raises(ValueError, match="rise"):
            producer.put_many(some_orders(1_000), position=5_999)
        producer.flush(30)
        assert [r.result(0).seq for r in receipts] == list(range(5_000, 6_000))
        assert producer.acknowledged_position == 5_999


@pytest.mark.parametrize(("position", "by_columns"), [(None, False), (0, True)])
def test_dicts_with_positions_go_by_columns_and_others_by_compiled_code(
    order_config: Make, position: int | None, by_columns: bool
) -> None:
    config, stream = order_config()
    with Producer(stream, config=config, name=f"by-{by_columns}") as producer:
        receipts = producer.put_many([order(n) for n in range(2_000)], key="item", position=position)
        assert isinstance(receipts[0][0].entries, Block) is by_columns
        assert receipts[-1].result(30).seq - receipts[0].result(30).seq == 1_999


def test_put_many_stays_within_the_buffer_when_the_broker_hangs(order_config: Make, frozen_broker: Any) -> None:
    config, stream = order_config(shards=1)
    producer = Producer(stream, config=config, buffer_bytes_max=1 << 20)
    frozen_broker()
    with pytest.raises(BufferFullError):
        producer.put_many(some_orders(200_000), timeout=0.2)
    assert producer._state.buffered_bytes <= 1 << 20
    frozen_broker.thaw()
    producer.close()
    assert producer.stats.records_acknowledged == producer.stats.records_put > 0
