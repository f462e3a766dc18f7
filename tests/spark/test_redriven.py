"""Dead letters that come back, in bronze and silver: each record once, at its first place in the order."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.audit import audit
from jobs.redriven import first_life as read_by_tables
from pipeline import Consumer, Producer
from pipeline.consume.redriven import first_life as read_by_consumers
from pipeline.consume.redriven import redrive_header
from pipeline.kafka.registry_client import RegistryClient
from pipeline.model.record import FirstLife, OrderToken, Record
from pipeline.model.stamp import REDRIVE_HEADER
from pipeline.replay.redrive import Redrive
from pipeline.schema.envelope import envelope_text
from pipeline.schema.value_schema import parse_schema

MakeLake = Callable[..., Any]
GROWN: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "item", "type": "string"},
        {"name": "number", "type": "int"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "price", "type": ["null", "double"], "default": None},
    ],
}


def order(number: int, item: str = "apple") -> dict[str, Any]:
    return {"item": item, "number": number, "note": None}


def bury(shop: Any, group: str, numbers: set[int], count: int) -> None:
    """Handle ``count`` records in a group; those with these numbers go to the dead letters."""

    def handle(record: Record) -> None:
        if record.value["number"] in numbers:
            raise ValueError("not this one")

    with Consumer(shop.stream, group=group, config=shop.config) as consumer:
        consumer.run(handle, retries=0, max_records=count)


def bury_bad(shop: Any, group: str, letters: int) -> None:
    """Read until there are so many dead letters, of messages that cannot be read."""
    with Consumer(shop.stream, group=group, config=shop.config) as consumer, Redrive(shop.config, shop.stream) as dead:
        deadline = time.monotonic() + 60
        while len(dead.matching(None)) < letters:
            assert consumer.read(0.2) == []
            assert time.monotonic() < deadline, "no dead letters"


def redrive(shop: Any) -> None:
    with Redrive(shop.config, shop.stream) as dead:
        assert dead.run().redriven > 0


def rows(shop: Any) -> list[tuple[Any, ...]]:
    found = shop.read().select("number", "_meta.*").collect()
    return sorted(
        (r["number"], r["key"], r["producer"], r["seq"], r["id"], r["shard"], r["topic"], r["partition"], tuple(r["order"]))
        for r in found
    )


def test_records_that_a_handler_refused_are_in_the_table_once_also_when_several_groups_buried_them(lake: MakeLake) -> None:
    shop = lake(shards=2)
    shop.put(*((f"k{n}", n) for n in range(6)))
    bury(shop, "one", {1, 3}, 6)
    bury(shop, "two", {1, 3}, 6)
    redrive(shop)
    shop.run()  # first lives and all copies in one micro-batch
    assert (shop.numbers(), shop.totals()["records"], shop.totals()["repeats"]) == ([0, 1, 2, 3, 4, 5], 6, 4)
    bury(shop, "three", {5}, 10)
    redrive(shop)
    shop.put(("k9", 9))
    shop.run()  # the table has them
    assert (shop.numbers(), shop.totals()["records"], shop.totals()["repeats"]) == ([0, 1, 2, 3, 4, 5, 9], 7, 5)
    shop.put(("k10", 10))
    shop.run()  # nothing comes back in this one: its rows lack the column that the table has got
    assert (shop.numbers(), shop.totals()["records"]) == ([0, 1, 2, 3, 4, 5, 9, 10], 8)
    assert [one.findings for one in audit(shop.spark, shop.config, "bronze.orders")] == [[]]


def test_a_message_that_was_rejected_comes_in_with_its_first_order_and_overwrites_nothing_newer(lake: MakeLake) -> None:
    shop = lake(shards=1)
    shop.send([(0, "apple", order(0))])
    known = dict(shop.schema_ids)
    registry = RegistryClient(shop.config.connection)
    shop.options["value"] = GROWN
    shop.schema_ids["packed"] = registry.register(f"not-{shop.stream}", envelope_text(parse_schema(GROWN)))
    offset = shop.send([(1, "apple", order(1)), (2, "pear", order(2, "pear"))])  # by a schema of another stream's, so far
    del shop.options["value"]
    shop.schema_ids = known
    shop.send([(3, "apple", order(3))])
    shop.run("bronze.orders", "silver.orders")
    assert shop.numbers() == [0, 3]
    assert [row["reason"] for row in shop.rejected()] == ["schema_id"]
    bury(shop, "one", set(), 2)
    bury(shop, "two", set(), 2)
    registry.register(f"{shop.stream}-value", envelope_text(parse_schema(GROWN)))
    redrive(shop)
    shop.run("bronze.orders", "silver.orders")
    bury(shop, "three", {1, 2}, 6)
    redrive(shop)
    shop.send([(4, "plum", order(4, "plum"))])
    shop.run("bronze.orders", "silver.orders")

    place = ("s0", shop.stream, 0)
    assert rows(shop)[:4] == [
        (0, "apple", "hand", 0, None, *place, (0, 0, 0)),
        (1, "apple", "hand", 1, None, *place, (0, offset, 0)),
        (2, "pear", "hand", 2, None, *place, (0, offset, 1)),
        (3, "apple", "hand", 3, None, *place, (0, offset + 1, 0)),
    ]
    assert shop.numbers() == [0, 1, 2, 3, 4]
    assert {row["item"]: row["number"] for row in shop.read("silver.orders").collect()} == {"apple": 3, "pear": 2, "plum": 4}
    assert [one.findings for one in audit(shop.spark, shop.config, shop.stream)] == [[], []]


def test_foreign_messages_of_the_same_key_and_offset_in_two_partitions_are_two_records(lake: MakeLake) -> None:
    shop = lake(shards=2)
    for partition in (0, 1):
        assert shop.send([(0, "apple", order(partition))], stamped=False, partition=partition) == 0
    shop.run()
    assert [row["reason"] for row in shop.rejected()] == ["foreign", "foreign"]
    bury_bad(shop, "one", 2)
    bury_bad(shop, "two", 4)
    redrive(shop)
    shop.run()
    shards = {shard.partition: shard.id for shard in shop.shard_map().shards.values()}
    assert rows(shop) == [
        (partition, "apple", None, None, None, shards[partition], shop.stream, partition, (0, 0, 0)) for partition in (0, 1)
    ]
    assert [one.findings for one in audit(shop.spark, shop.config, "bronze.orders")] == [[]]


def test_a_header_that_somebody_else_than_a_redrive_put_says_nothing(lake: MakeLake) -> None:
    shop = lake(shards=1)
    life = FirstLife(OrderToken(0, 0, 0), "hand", 0, (shop.stream, 0))
    with Producer(shop.stream, config=shop.config, linger_ms=1) as producer:
        for number in (0, 1):
            producer.put(order(number), key="apple", headers=[(REDRIVE_HEADER, redrive_header(life, 7))])
        producer.flush()
    shop.run()
    assert [row[-1][1:] for row in rows(shop)] in ([(0, 0), (0, 1)], [(0, 0), (1, 0)])


HEADERS = [
    redrive_header(FirstLife(OrderToken(1, 5_000_000_000, 3), "p", 9, ("t", 2)), 4),
    redrive_header(FirstLife(OrderToken(1, 2, 3), "p", 9), 4),
    redrive_header(FirstLife(OrderToken(0, 2, 0), "", -1, ("t", 2)), 4),
    b'{"order":[0,1],"producer":"p","seq":1}',
    b'{"order":[0,1,2,3],"producer":"p","seq":1}',
    b'{"order":[0,-1,2],"producer":"p","seq":1}',
    b'{"order":[0,1,1.5],"producer":"p","seq":1}',
    b'{"order":[0,1,2],"producer":"p"}',
    b'{"order":[0,1,2],"producer":"p","seq":"1"}',
    b'{"order":[0,1,2],"producer":null,"seq":1}',
    b'{"order":[0,1,99999999999999999999],"producer":"p","seq":1}',
    b'{"order":{"0":1},"producer":"p","seq":1}',
    b"{'order':[0,1,2],'producer':'p','seq':1}",
    b'{"order":[0,1,2],"producer":"p","seq":1,"from":["t"]}',
    b'{"order":[0,1,2],"producer":"p","seq":1,"pad":"' + b"x" * 5_000 + b'"}',
    b"[]",
    b"",
    b"\xff\x00 rubbish",
    None,
]


def test_tables_read_a_redrive_header_as_consumers_do(spark: SparkSession) -> None:
    told = spark.createDataFrame([(number, one) for number, one in enumerate(HEADERS)], "number int, header binary")
    found = told.select("number", read_by_tables(F.col("header")).alias("life")).orderBy("number").collect()
    for row, header in zip(found, HEADERS, strict=True):
        by_consumers = read_by_consumers(header)
        expected = None
        if by_consumers is not None:
            named = (by_consumers.producer, by_consumers.seq) if by_consumers.producer else (None, None)
            token = by_consumers.order
            expected = (token.generation, token.offset, token.index, *named, *(by_consumers.place or (None, None)))
        assert (None if row["life"] is None else tuple(row["life"])) == expected, header
    assert sum(row["life"] is not None for row in found) == 4  # with a place that cannot be read among them
