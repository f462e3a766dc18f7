"""Ways to handle records, on a real broker: side by side by key, by chunk and column, beside an event loop; and what becomes
of those that fail."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Consumer as PlainConsumer
from confluent_kafka import Producer as PlainProducer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline import Consumer, Producer, reshard
from pipeline.errors import ConfigError, HandlerError, StopError
from pipeline.kafka.topics import Topics
from pipeline.model.record import Record
from pipeline.observe.endpoint import serve
from pipeline.schema.decode import AggregateDecoder
from pipeline.schema.framing import split_frame

Make = Callable[..., Any]
TOGETHER: dict[str, Any] = {"linger_ms": 600_000}  # all records in one aggregate a shard


def put(config: Any, stream: str, pairs: list[tuple[str, int]], **options: Any) -> None:
    with Producer(stream, config=config, **(TOGETHER | options)) as producer:
        for key, number in pairs:
            producer.put({"item": key, "number": number, "note": None}, key=key)
        producer.flush(30)


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_workers_run_keys_side_by_side_and_each_key_in_order(order_config: Make) -> None:
    config, stream = order_config(shards=2)
    put(config, stream, [(f"k{n % 4}", n) for n in range(40)])
    together = threading.Barrier(4)
    seen: dict[str, list[int]] = {}

    def handle(record: Record) -> None:
        if record.key not in seen:
            together.wait(20)  # passes only where four keys are handled at once
        seen.setdefault(record.key, []).append(record.value["number"])

    with Consumer(stream, group="g", config=config) as consumer:
        assert consumer.run(handle, workers=4, max_records=40) == 40
    assert seen == {f"k{key}": list(range(key, 40, 4)) for key in range(4)}


def test_a_slow_key_holds_up_neither_other_keys_nor_their_handling_and_is_not_passed_by_a_commit(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, [("slow", 0), *((f"k{n}", n) for n in range(1, 20)), ("slow", 20)])
    hang, seen = threading.Event(), []

    def handle(record: Record) -> None:
        if record.key == "slow":
            hang.wait(30)
        seen.append(record.value["number"])

    with Consumer(stream, group="g", config=config, commit_interval_s=0) as consumer:
        running = threading.Thread(target=lambda: consumer.run(handle, workers=3, stop_timeout_s=0.1))
        running.start()
        until(lambda: len(seen) == 19)
        consumer.stop()
        running.join(20)
    assert sorted(seen) == list(range(1, 20))
    hang.set()
    with Consumer(stream, group="g", config=config) as consumer:
        again = [record.value["number"] for record in consumer.read(20)]
    assert again[0] == 0, "the record that was not finished, and what stands behind it, come again"


def test_no_more_records_are_under_way_than_the_bound(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, [("slow", n) for n in range(60)], records_max=10)
    hang = threading.Event()
    first = threading.Event()

    def handle(_: Record) -> None:
        first.set()
        hang.wait(30)

    with Consumer(stream, group="g", config=config) as consumer:
        running = threading.Thread(target=lambda: consumer.run(handle, workers=2, in_flight_max=20, max_records=60))
        running.start()
        first.wait(20)
        until(lambda: consumer.stats.messages == 2)
        hang.set()
        running.join(20)
        assert consumer.stats.records == 60


def test_stop_on_failure_raises_and_the_record_comes_again(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, [("k", n) for n in range(5)])

    def handle(record: Record) -> None:
        if record.value["number"] == 3:
            raise RuntimeError("secret content")

    with Consumer(stream, group="g", config=config) as consumer:
        with pytest.raises(HandlerError, match=r"index 3\): the handler raised RuntimeError") as caught:
            consumer.run(handle, retries=0, on_failure="stop")
        assert "secret" not in str(caught.value)
        assert [record.value["number"] for record in consumer.read(20)] == [3, 4]


def test_a_blocked_keys_later_records_wait_and_other_keys_go_on(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, [("bad", 0), ("good", 1), ("bad", 2), ("good", 3)])
    seen: list[int] = []

    def handle(record: Record) -> None:
        if record.value["number"] == 0 and 3 not in seen:
            raise RuntimeError("not yet")
        seen.append(record.value["number"])

    with Consumer(stream, group="g", config=config) as consumer:
        assert consumer.run(handle, workers=2, retries=0, on_failure="block_key", max_records=4) == 4
        assert consumer.stats.retries >= 1
        assert consumer.stats.dead_letters == 0
    assert seen == [1, 3, 0, 2]


def test_a_dead_letter_holds_the_one_record_and_everything_about_it(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, **TOGETHER) as producer:
        rows = [{"item": "x", "number": n, "note": None} for n in range(3)]
        receipts = [producer.put(row, key="k", id=f"id{row['number']}", headers=[("a", b"1")]) for row in rows]
        producer.flush(30)
    placed = receipts[1].result(0)

    def handle(record: Record) -> None:
        if record.value["number"] == 1:
            raise ValueError("no")

    with Consumer(stream, group="g", config=config) as consumer:
        consumer.run(handle, retries=1, max_records=3)
        decoder = consumer._unpacker.decoder(records_schema := split_frame(_letter(config, stream).value())[0])
    message = _letter(config, stream)
    about = json.loads(dict(message.headers())["headrace-dead"])
    assert isinstance(decoder, AggregateDecoder)
    [entry] = decoder.decode(split_frame(message.value())[1])
    assert (entry.value, entry.id, entry.headers) == ({"item": "x", "number": 1, "note": None}, "id1", [("a", b"1")])
    assert about["first_ms"] < about["last_ms"], "the retry came later"
    expected = {
        "topic": stream, "partition": 0, "offset": placed.offset, "index": 1, "shard": placed.shard, "seq": placed.seq,
        "id": "id1", "group": "g", "error": "ValueError", "text": "no", "attempts": 2, "schema_id": records_schema,
        "order": [placed.order.generation, placed.order.offset, placed.order.index],
    }  # fmt: skip
    assert {name: about[name] for name in expected} == expected


def _letter(config: Any, stream: str) -> Any:
    reader = PlainConsumer({"bootstrap.servers": config.connection.bootstrap, "group.id": "dead"})
    reader.assign([TopicPartition(f"{stream}.dead", 0, 0)])
    try:
        message = reader.poll(20)
        assert message is not None
        assert message.error() is None
        return message
    finally:
        reader.close()


def test_chunks_are_cut_to_size_and_one_that_was_left_comes_again(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, [("k", n) for n in range(10)])
    with Consumer(stream, group="g", config=config) as consumer:
        for chunk in consumer.chunks(4):
            numbers = [record.value["number"] for record in chunk]
            if numbers[0] == 4:
                break
        assert [record.value["number"] for record in consumer.read(20)] == [4, 5, 6, 7, 8, 9]


def test_arrow_gives_the_same_records_by_column(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, **TOGETHER) as producer:
        for n in range(5):
            producer.put({"item": "x", "number": n, "note": "n" if n else None} if n != 3 else None, key=f"k{n}", id=f"i{n}")
        producer.flush(30)
        producer.put({"item": "h", "number": 9, "note": None}, key="h", headers=[("a", b"1")])  # decoded by fastavro
        producer.flush(30)
    with Consumer(stream, group="g", config=config) as consumer:
        batches = consumer.arrow()
        table = pa.Table.from_batches([next(batches), next(batches)])
        batches.close()
        assert consumer.read(0.5), "a batch counts as handled when the next one is asked for"
    assert table.column("number").to_pylist() == [0, 1, 2, None, 4, 9]
    meta = table.column("_meta").to_pylist()
    assert [one["key"] for one in meta] == ["k0", "k1", "k2", "k3", "k4", "h"]
    assert [one["order"]["index"] for one in meta] == [0, 1, 2, 3, 4, 0]
    assert meta[4]["seq"] == meta[0]["seq"] + 4
    assert meta[0]["id"] == "i0"
    assert abs((datetime.now(UTC) - meta[5]["timestamp"]).total_seconds()) < 60


def test_coroutines_handle_records_and_async_for_reads_them(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, [(f"k{n % 2}", n) for n in range(10)])

    async def go() -> tuple[dict[str, list[int]], list[int]]:
        seen: dict[str, list[int]] = {}

        async def handle(record: Record) -> None:
            await asyncio.sleep(0)
            seen.setdefault(record.key, []).append(record.value["number"])

        with Consumer(stream, group="g", config=config) as consumer:
            assert await consumer.arun(handle, workers=2, max_records=6) == 6
            rest: list[int] = []
            async for record in consumer:
                rest.append(record.value["number"])
                if len(rest) == 4:
                    break
            return seen, rest

    seen, rest = asyncio.run(go())
    assert seen == {"k0": [0, 2, 4], "k1": [1, 3, 5]}
    assert rest == [6, 7, 8, 9]


def test_seek_starts_the_group_over_and_refuses_while_there_are_others(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, [("k", n) for n in range(3)])
    put(config, stream, [("k", n) for n in range(3, 6)])
    with Consumer(stream, group="g", config=config) as consumer:
        records = consumer.read(20) + consumer.read(20)
        assert [record.value["number"] for record in records] == list(range(6))
        consumer.seek({0: records[3].offset})
        assert consumer.read(20)[0].value["number"] == 3
        consumer.seek("earliest")
        assert consumer.read(20)[0].value["number"] == 0
        with pytest.raises(ConfigError, match="has offsets from 0 to"):
            consumer.seek({0: 1_000_000})
        with Consumer(stream, group="g", config=config) as other:
            other.read(0.5)
            with pytest.raises(StopError, match="still has members"):
                consumer.seek("earliest")


@pytest.mark.parametrize(
    ("form", "raw", "value"),
    [("json", b'{"a": [1, null]}', {"a": [1, None]}), ("bytes", b"\x00\xff", b"\x00\xff")],
)
def test_a_foreign_topic_is_consumed_in_its_own_format(order_config: Make, form: str, raw: bytes, value: Any) -> None:
    config, stream = order_config(schema=None, format=form)
    Topics(config.connection).create(stream, 2, {})
    plain = PlainProducer({"bootstrap.servers": config.connection.bootstrap})
    for partition in (0, 1):
        plain.produce(stream, key=b"k", value=raw, partition=partition, headers=[("h", b"1")])
    if form == "json":
        plain.produce(stream, value=b"[" * 100_000, partition=0)
        plain.produce(stream, value=b"\xff", partition=1)
    plain.produce(stream, key=b"gone", value=None, partition=0)
    plain.flush(10)
    found: list[Record] = []
    with Consumer(stream, group="g", config=config) as consumer:
        assert consumer.run(found.append, max_records=3) == 3
        until(lambda: consumer.read(0.2) == [] and consumer.stats.bad == (2 if form == "json" else 0))
    assert sorted((r.key, repr(r.value)) for r in found) == sorted([("k", repr(value))] * 2 + [("gone", "None")])
    assert [r.headers for r in found if r.key == "k"] == [[("h", b"1")]] * 2
    with pytest.raises(ConfigError, match="can only be consumed"):
        Producer(stream, config=config)


def test_a_consumer_that_may_goes_on_past_what_retention_trimmed_and_counts_it(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, [("k", 0)])
    with Consumer(stream, group="g", config=config) as consumer:
        consumer.run(lambda _: None, max_records=1)
    put(config, stream, [("k", n) for n in range(1, 7)], records_max=1)
    admin = AdminClient({"bootstrap.servers": config.connection.bootstrap})
    for future in admin.delete_records([TopicPartition(stream, 0, 5)]).values():
        future.result(10)
    with Consumer(stream, group="g", config=config, on_trimmed="continue") as consumer:
        seen: list[int] = []
        consumer.run(lambda record: seen.append(record.value["number"]), max_records=2)
        assert consumer.stats.trimmed == 4
    assert seen == [5, 6]


HANGS = """
import sys, time
from pipeline import Consumer, load_config
def handle(record):
    print(record.value["number"], flush=True)
    if record.value["number"] == 3:
        time.sleep(600)
with Consumer(sys.argv[2], group="g", config=load_config(sys.argv[1])) as consumer:
    consumer.run(handle, stop_timeout_s=0.2)
"""


def test_sigterm_ends_a_run_within_its_deadline_and_commits_what_is_handled(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, [("k", n) for n in range(6)])
    with subprocess.Popen(
        [sys.executable, "-c", HANGS, str(config.path), stream], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        assert [int(worker.stdout.readline()) for _ in range(4)] == [0, 1, 2, 3]
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    with Consumer(stream, group="g", config=config) as consumer:
        assert [record.value["number"] for record in consumer.read(20)] == [3, 4, 5]


def test_explicit_ids_are_dropped_in_their_window_over_restarts_and_splits(order_config: Make) -> None:
    config, stream = order_config(shards=1, dedup="window 1h")
    numbers = iter(range(100))

    def put_ids(*ids: str) -> None:
        with Producer(stream, config=config) as producer:
            for one in ids:
                producer.put({"item": "x", "number": next(numbers), "note": None}, key=f"key-{one}", id=one)
            producer.flush(30)

    def read_ids(count: int, duplicates: int) -> list[str | None]:
        with Consumer(stream, group="g", config=config) as consumer:
            found: list[str | None] = []


            def came() -> bool:
                found.extend(record.id for record in consumer.read(0.1))
                return len(found) >= count and consumer.stats.duplicates_dropped == duplicates

            until(came)
            assert consumer.read(0.0) == []  # and so says that they are handled
            return found

    put_ids("a", "b", "a", "c")
    assert read_ids(3, 1) == ["a", "b", "c"]
    put_ids("b", "d", "a")
    assert read_ids(1, 2) == ["d"]
    reshard.split(stream, "s0", config=config)
    put_ids("a", "b", "c", "d", "e", "e")
    assert read_ids(1, 5) == ["e"]


def test_health_tells_of_a_handler_that_hangs_until_it_goes_on(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, [("k", 1)])
    hang = threading.Event()
    url = serve(config, "test")
    assert url is not None

    def health() -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(url.replace("/metrics", "/health"), timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    with Consumer(stream, group="g", config=config, stuck_after_s=0.3) as consumer:
        running = threading.Thread(target=lambda: consumer.run(lambda _: hang.wait(60), max_records=1))
        running.start()
        # /health tells of the whole process, and of a slow start too.
        until(lambda: any("a handler has been at one record" in problem for problem in consumer.problems()))
        assert health()[0] == 503
        hang.set()
        running.join(20)
    until(lambda: consumer.problems() == [])


def test_one_group_may_read_two_streams_and_members_of_the_classic_protocol_share_one(order_config: Make) -> None:
    config, stream = order_config(shards=2, copies=["copy"])
    other = f"{stream}-copy"
    put(config, stream, [(f"k{n}", n) for n in range(10)])
    put(config, other, [(f"k{n}", n) for n in range(100, 105)])
    seen: dict[str, list[int]] = {stream: [], other: []}
    consumers = [Consumer(name, group="g", config=config, group_protocol="classic") for name in (stream, stream, other)]

    def work(consumer: Consumer) -> None:
        consumer.run(lambda record: seen[record.topic].append(record.value["number"]))

    threads = [threading.Thread(target=work, args=(consumer,)) for consumer in consumers]
    for thread in threads:
        thread.start()
    until(lambda: len(seen[stream]) >= 10 and len(seen[other]) >= 5, 40)
    for consumer, thread in zip(consumers, threads, strict=True):
        consumer.stop()
        thread.join(20)
        consumer.close()
    assert {name: sorted(found) for name, found in seen.items()} == {stream: list(range(10)), other: list(range(100, 105))}
