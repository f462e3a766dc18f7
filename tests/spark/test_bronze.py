"""Bronze on a real broker: what is in the table after records were put, repeated, voided, damaged, or read again."""

from __future__ import annotations

import json
import shutil
import uuid
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from pyspark.sql import functions as F

from jobs.audit import audit
from jobs.bronze import BronzeJob
from jobs.supervise import Reaction, reaction
from pipeline import Producer
from pipeline.errors import HeadraceError, InvariantError
from pipeline.model.keys import HASH_SPACE, hash_key
from pipeline.reshard import merge, split
from pipeline.schema.encode import compile_encoder
from pipeline.schema.value_schema import parse_schema

MakeLake = Callable[..., Any]
ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "item", "type": "string"},
        {"name": "number", "type": "int"},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}


def order(number: int, item: str = "apple") -> dict[str, Any]:
    return {"item": item, "number": number, "note": None}


def test_rows_carry_the_value_and_its_position_when_aggregates_are_read(lake: MakeLake) -> None:
    shop = lake()
    shop.put(*((f"item-{n % 7}", n) for n in range(40)))

    progress = shop.run()["bronze.orders"]

    rows = shop.read().select("item", "number", "note", "_meta.*", F.xxhash64("_meta.key").alias("hashed")).collect()
    assert sorted(row["number"] for row in rows) == list(range(40))
    assert (progress.records, progress.repeats, progress.rejected) == (40, 0, 0)
    shards = shop.shard_map().shards
    for row in rows:
        shard = shards[row["shard"]]
        assert row["key"] == row["item"]
        assert row["hashed"] % (1 << 64) == hash_key(row["item"])
        assert shard.holds(hash_key(row["item"]))
        assert (row["topic"], row["partition"], row["order"]["generation"]) == (shop.stream, shard.partition, 0)
        assert row["schema_id"] == shop.schema_ids["packed"]
        assert row["timestamp"] is not None
        assert row["produced_at"] is not None
    by_key: dict[str, list[Any]] = {}
    for row in sorted(rows, key=lambda row: row["number"]):
        by_key.setdefault(row["item"], []).append(tuple(row["order"]))
    assert all(tokens == sorted(set(tokens)) for tokens in by_key.values())


def test_the_span_in_which_a_record_was_put_is_named_in_its_row(lake: MakeLake) -> None:
    shop = lake(foreign="accept")
    parent = f"00-{0xABCD:032x}-{0xEF:016x}-01"
    span = NonRecordingSpan(SpanContext(0xABCD, 0xEF, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
    with Producer(shop.stream, config=shop.config) as producer:
        producer.put(order(0), key="apple")
        with use_span(span):
            producer.put(order(1), key="apple")
    body = shop.encode([(0, "apple", order(2))], 0, plain=True)
    assert body is not None
    for headers in ([("traceparent", parent.encode())], [("other", b"1"), ("traceparent", parent.encode())], [("other", b"1")]):
        shop.produce(0, b"apple", body, headers)

    shop.run()

    traces = [row["traceparent"] for row in shop.read().select("number", "_meta.*").sort("number", "order").collect()]
    assert traces == [None, parent, parent, parent, None]


def test_only_new_rows_are_added_when_the_job_runs_again(lake: MakeLake) -> None:
    shop = lake()
    shop.put(("a", 1), ("b", 2))
    shop.run()
    first = shop.version()
    shop.run()
    assert shop.version() == first
    shop.put(("a", 3))
    shop.run()
    assert shop.numbers() == [1, 2, 3]


@pytest.mark.parametrize("point", ["before the write", "after the commit"])
def test_nothing_is_lost_or_repeated_when_it_dies_inside_a_micro_batch(
    lake: MakeLake, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    shop = lake()
    shop.send([(0, "apple", order(0)), (1, "apple", order(1))])
    shop.run()
    shop.send([(1, "apple", order(1)), (2, "apple", order(2))])  # one record is a repeat
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise InvariantError("killed by the test")

        patch.setattr(BronzeJob, "_write" if point == "before the write" else "_committed", die)
        with pytest.raises(InvariantError):
            shop.run()
    # The micro-batch is planned in the Spark checkpoint and not noted as done; Spark 4.1.1 fails once on the way.
    reactions = []
    monkeypatch.setattr("jobs.supervise.reaction", lambda *seen: reactions.append(reaction(*seen)) or reactions[-1])
    shop.send([(3, "apple", order(3))])
    shop.run()
    assert reactions == [Reaction.RESTART]
    assert shop.numbers() == [0, 1, 2, 3]
    assert shop.totals() | {"bytes": 0} == {
        "messages": 3, "bytes": 0, "records": 4, "repeats": 1, "voids": 0, "rejected": 0, "foreign": 0,
    }  # fmt: skip


def test_a_lost_spark_checkpoint_is_made_anew_from_the_positions_in_the_table(lake: MakeLake) -> None:
    shop = lake()
    shop.send([(0, "apple", order(0))])
    shop.produce(0, b"x", b"not ours", [])  # a rejected message has no marks to stop it from coming twice
    shop.run()
    shutil.rmtree(shop.checkpoint)
    shop.send([(0, "apple", order(0))])
    shop.send([(1, "apple", order(1))])
    shop.run()
    assert shop.numbers() == [0, 1]
    assert len(shop.rejected()) == 1
    assert shop.totals()["repeats"] == 1


def test_repeats_are_dropped_whole_and_in_part(lake: MakeLake) -> None:
    shop = lake()
    shop.send([(n, "apple", order(n)) for n in range(4)])
    shop.send([(n, "apple", order(n)) for n in range(4)])  # the whole again, in the same micro-batch
    shop.send([(n, "apple", order(n)) for n in range(2, 6)])  # cut otherwise by a producer that started again
    shop.send([(0, "apple", order(100))], producer="another")
    shop.run()
    shop.send([(n, "apple", order(n)) for n in range(4, 8)])  # and in the next micro-batch
    shop.run()
    assert shop.numbers() == [*range(8), 100]
    assert shop.totals()["repeats"] == 4 + 2 + 2


def test_records_behind_a_seal_are_left_out_and_children_are_read_after_their_parents(lake: MakeLake) -> None:
    shop = lake(shards=1)
    keys = [f"item-{n}" for n in range(8)]
    shop.put(*((key, 0) for key in keys))
    config = shop.config
    done = split(shop.stream, "s0", config=config)
    shop.send([(0, keys[0], order(999, keys[0]))], shard="s0")  # a producer that slept: behind the seal
    shop.put(*((key, 1) for key in keys))
    shop.run()
    rows = shop.read().select("item", "number", "_meta.shard", "_meta.order").collect()
    assert sorted(row["number"] for row in rows) == [0] * 8 + [1] * 8
    assert {row["shard"] for row in rows} == {"s0", *done.children}
    for key in keys:
        tokens = [tuple(r["order"]) for r in sorted(rows, key=lambda r: r["number"]) if r["item"] == key]
        assert tokens == sorted(tokens)
    assert shop.totals()["voids"] == 1


def test_a_laggard_is_not_taken_for_a_repeat_when_shards_were_merged(lake: MakeLake) -> None:
    shop = lake(shards=2)
    shards = shop.shard_map().shards
    low = next(f"k{n}" for n in range(99) if shards["s0"].holds(hash_key(f"k{n}")))
    high = next(f"k{n}" for n in range(99) if shards["s1"].holds(hash_key(f"k{n}")))
    shop.send([(5, low, order(5, low))], shard="s0")
    shop.send([(1, high, order(1, high))], shard="s1")
    config = shop.config
    (child,) = merge(shop.stream, "s0", "s1", config=config).children
    # Sequence 3 is new in high's range and below the mark of low's; 4 and 5 are repeats there.
    shop.send([(seq, key, order(seq, key)) for seq, key in ((3, high), (4, low), (5, low), (6, high))], shard=child)
    shop.run()
    assert shop.numbers() == [1, 3, 5, 6]
    assert shop.totals()["repeats"] == 2


def test_a_record_with_a_hash_key_of_its_own_is_judged_by_that_one_when_its_aggregate_is_partly_a_repeat(lake: MakeLake) -> None:
    shop = lake(shards=2)

    def load(*positions: tuple[int, int]) -> None:
        with Producer(shop.stream, config=shop.config, name="loader") as producer:
            for n, hashed in positions:
                producer.put(order(n, "k0"), "k0", position=n, hash_key=hashed)
            producer.flush(30)

    low, high = 0, HASH_SPACE - 1  # the key's own hash is in one half: one of the two is elsewhere
    load((1, low), (5, high))
    merge(shop.stream, "s0", "s1", config=shop.config)
    load((1, low), (3, low), (5, high), (6, high))
    shop.run()
    assert shop.numbers() == [1, 3, 5, 6]


def test_bad_messages_are_kept_raw_with_a_reason_beside_the_good_rows(lake: MakeLake) -> None:
    shop = lake()
    good = shop.encode([(0, "apple", order(7))], 0, False)
    sent = {
        "foreign": shop.send([(0, "apple", order(1))], stamped=False),
        "stamp": shop.send([(0, "apple", order(2))], stamp=b"\x09rubbish"),
        "unknown_shard": shop.send([(0, "apple", order(3))], named="s77"),
        "misplaced": shop.send([(0, "apple", order(4))], named="s0", partition=1),
        "framing": shop.send([(10, "apple", order(5))], value=b"\x01rubbish"),
        "schema_id": shop.send([(11, "apple", order(6))], value=b"\x00\x00\x0f\x42\x40" + good[5:]),
        "decode": shop.send([(12, "apple", order(7))], value=good[:-4]),
        "count": shop.send([(13, "apple", order(8)), (14, "apple", order(8))], count=1),
    }
    shop.send([(20, "apple", order(20))])
    shop.run()
    assert shop.numbers() == [20]
    found = {row["reason"]: row for row in shop.rejected()}
    assert found.keys() == sent.keys()
    for reason, row in found.items():
        assert row["_meta"]["order"]["offset"] == sent[reason]
        assert row["detail"]
        assert row["raw"]
    assert bytes(found["decode"]["raw"]) == good[:-4]
    assert shop.version() == 1  # one commit for all of them
    assert (shop.totals()["rejected"], shop.totals()["records"], shop.totals()["repeats"]) == (8, 1, 0)


def test_a_hostile_count_is_a_bad_message_and_does_not_take_the_memory(lake: MakeLake) -> None:
    shop = lake()
    two_billion = b"\x80\xd0\xac\xf3\x0e"  # as Avro writes the number of records; eight bytes in memory for each
    shop.send([(0, "apple", order(0))], value=shop.encode([(0, "apple", order(0))], 0, False)[:5] + two_billion)
    shop.send([(1, "apple", order(1))])
    shop.run()
    assert [row["reason"] for row in shop.rejected()] == ["decode"]
    assert shop.numbers() == [1]


def test_a_stream_whose_records_go_alone_is_read_and_audited_like_any_other(lake: MakeLake) -> None:
    shop = lake(aggregation="none")
    with Producer(shop.stream, config=shop.config) as producer:
        producer.put(order(1), key="apple")
        producer.put(order(2), key="pear", id="explicit")
        producer.put(order(3), key="plum", hash_key=hash_key("apple"))
        producer.put(None, key="apple")
    shop.run("bronze.orders", "silver.orders")
    rows = {row["_meta"]["seq"]: row for row in shop.read().collect()}
    assert {seq: (row["_meta"]["key"], row["number"]) for seq, row in rows.items()} == {
        0: ("apple", 1), 1: ("pear", 2), 2: ("plum", 3), 3: ("apple", None),
    }  # fmt: skip
    assert [seq for seq, row in rows.items() if row["_deleted"]] == [3]
    assert rows[1]["_meta"]["id"] == "explicit"
    assert rows[0]["_meta"]["schema_id"] != rows[1]["_meta"]["schema_id"]
    (result,) = audit(shop.spark, shop.config, "bronze.orders")
    assert not result.findings


def test_plain_packed_and_foreign_messages_are_read_from_one_topic(lake: MakeLake, stack: Any) -> None:
    shop = lake(foreign="accept")
    shop.send([(0, "apple", order(0))])
    shop.send([(1, "apple", order(1))], plain=True)
    shop.send([(2, "apple", None)], plain=True)
    shop.send([(3, "apple", None), (4, "apple", order(4))])
    registry = SchemaRegistryClient({"url": stack.registry_url})
    value = {"item": "pear", "number": 9, "note": "by hand"}
    settings = {"auto.register.schemas": False, "subject.name.strategy": record_subject_name_strategy}
    serializer = AvroSerializer(registry, json.dumps(ORDER), conf=settings)
    framed = serializer(value, SerializationContext(shop.stream, MessageField.VALUE))
    offset = shop.produce(0, b"pear", framed, [])
    body = framed[5:]
    glue = b"\x03\x00" + uuid.uuid4().bytes  # the 18 bytes that AWS Glue's serializer writes before the body
    shop.produce(0, b"glue", glue + compile_encoder(parse_schema(ORDER))(value | {"number": 10}), [])
    shop.produce(0, b"glue", b"\x03\x05" + glue[2:] + zlib.compress(body), [])
    shop.run()
    assert [row["detail"].split(",")[0] for row in shop.rejected()] == ["framed by AWS Glue and compressed"]
    by_glue = shop.read().where("_meta.key = 'glue'").select("number", "note", "_meta.schema_id").collect()
    assert [tuple(row) for row in by_glue] == [(10, "by hand", -1)]
    rows = {row["_meta"]["seq"]: row for row in shop.read().where("_meta.key != 'glue'").collect()}
    assert {seq: row["number"] for seq, row in rows.items()} == {0: 0, 1: 1, 2: None, 3: None, 4: 4, None: 9}
    assert {seq for seq, row in rows.items() if row["_deleted"]} == {2, 3}
    assert all(rows[seq]["_meta"]["key"] == "apple" for seq in range(5))
    foreign = rows[None]["_meta"]
    assert (foreign["key"], foreign["producer"], tuple(foreign["order"])) == ("pear", None, (0, offset, 0))
    assert shop.totals()["foreign"] == 2


def test_the_table_grows_a_column_when_the_schema_does(lake: MakeLake) -> None:
    shop = lake()
    shop.put(("apple", 1))
    shop.run("bronze.orders", "silver.orders")
    price = {"name": "price", "type": ["null", "double"], "default": None}
    shop.options["value"] = ORDER | {"fields": [*ORDER["fields"], price]}
    shop.create()
    shop.send([(0, "pear", order(2, "pear") | {"price": 1.5})])
    shop.run("bronze.orders", "silver.orders")
    for table in ("bronze.orders", "silver.orders"):
        rows = shop.read(table).select("number", "price").collect()
        assert {(row["number"], row["price"]) for row in rows} == {(1, None), (2, 1.5)}


def test_a_registry_that_does_not_answer_stops_nothing_for_good(
    lake: MakeLake, stack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = lake()
    shop.send([(0, "apple", order(0))])
    shop.connection = {"bootstrap": stack.bootstrap, "registry": "http://127.0.0.1:9"}
    monkeypatch.setattr("jobs.supervise.RETRY_BOUNDED_S", 0.0)
    monkeypatch.setattr("jobs.schemas.REGISTRY_TIMEOUT_S", 0.2)
    with pytest.raises(HeadraceError, match="no answer from the registry"):
        shop.run()
    assert shop.numbers() == []
    shop.connection = {}
    shop.run()
    assert shop.numbers() == [0]
