"""The consumer on a real broker and registry."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer as PlainConsumer
from confluent_kafka import Producer as PlainProducer
from confluent_kafka import TopicPartition

from pipeline import Consumer, Producer, reshard
from pipeline.errors import ConfigError, TrimmedError, UnknownStreamError
from pipeline.kafka.topics import Topics
from pipeline.model.keys import HASH_SPACE
from pipeline.model.record import Record
from pipeline.reshard.control_log import ControlLog
from tests.order import first_difference

Make = Callable[..., Any]


def put_orders(config: Any, stream: str, numbers: range, key: str = "lamp", **options: Any) -> None:
    with Producer(stream, config=config, **options) as producer:
        for n in numbers:
            producer.put({"item": key, "number": n, "note": None}, key=key)
        producer.flush(30)


def read_records(consumer: Consumer, count: int, timeout_s: float = 30.0) -> list[Record]:
    """Read until ``count`` records came, then commit."""
    out: list[Record] = []
    deadline = time.monotonic() + timeout_s
    while len(out) < count:
        assert time.monotonic() < deadline, f"{len(out)} of {count} records came"
        out.extend(consumer.read(0.5))
    consumer.read(0.0)
    consumer.commit()
    return out


def read_numbers(consumer: Consumer, count: int, timeout_s: float = 30.0) -> list[int]:
    return [record.value["number"] for record in read_records(consumer, count, timeout_s)]


def dead_letters(config: Any, topic: str, count: int) -> list[tuple[dict[str, Any], Any]]:
    """Read by the plain client: (what headers say, message)."""
    reader = PlainConsumer({"bootstrap.servers": config.connection.bootstrap, "group.id": "dead", "enable.auto.commit": False})
    reader.assign([TopicPartition(topic, 0, 0)])
    out = []
    deadline = time.monotonic() + 20
    while len(out) < count:
        assert time.monotonic() < deadline
        message = reader.poll(0.2)
        if message is not None and not message.error():
            out.append((json.loads(dict(message.headers())["headrace-dead"]), message))
    reader.close()
    return out


def test_records_come_with_everything_that_was_put(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config) as producer:
        receipt = producer.put(
            {"item": "lamp", "number": 1, "note": "n"}, key="lamp", id="mine", headers=[("a", b"1"), ("b", None)]
        )
        producer.put(None, key="gone")
        producer.flush(30)
        placed = receipt.result(0)
    with Consumer(stream, group="g", config=config) as consumer:
        records = consumer.read(20)
    assert [(r.key, r.value, r.id, r.headers) for r in records] == [
        ("lamp", {"item": "lamp", "number": 1, "note": "n"}, "mine", [("a", b"1"), ("b", None)]),
        ("gone", None, None, []),
    ]
    first = records[0]
    assert (first.shard, first.partition, first.offset, first.index, first.order) == (
        placed.shard,
        placed.partition,
        placed.offset,
        placed.index,
        placed.order,
    )
    assert abs(first.produced_at_ms - time.time() * 1000) < 60_000


def test_a_group_goes_on_where_it_committed(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put_orders(config, stream, range(100))
    with Consumer(stream, group="g", config=config) as consumer:
        assert read_numbers(consumer, 100) == list(range(100))
    put_orders(config, stream, range(100, 150))
    with Consumer(stream, group="g", config=config) as consumer:
        assert read_numbers(consumer, 50) == list(range(100, 150))


CRASH = """
import os, signal, sys
from pipeline import Consumer, load_config
seen = 0
for record in Consumer(sys.argv[2], group="g", config=load_config(sys.argv[1]), commit_interval_s=0):
    print(record.value["number"], flush=True)
    seen += 1
    if seen == 40:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_consumer_resumes_inside_the_aggregate_and_loses_nothing(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put_orders(config, stream, range(100), linger_ms=600_000)
    died = subprocess.run(
        [sys.executable, "-c", CRASH, str(config.path), stream], capture_output=True, text=True, timeout=60, check=False
    )
    assert died.returncode == -9, died.stderr
    first = [int(line) for line in died.stdout.split()]
    with Consumer(stream, group="g", config=config) as consumer:
        second = read_numbers(consumer, 61)
    assert first == list(range(40))
    assert second == list(range(39, 100)), "the record in hand comes again, those before it do not"


def test_records_of_a_loop_that_was_left_come_again(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put_orders(config, stream, range(20), linger_ms=600_000)
    with Consumer(stream, group="g", config=config) as consumer:
        for record in consumer:
            if record.value["number"] == 5:
                break
        assert read_numbers(consumer, 15) == list(range(5, 20))


def test_run_handles_in_order_and_stops_after_max_records(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put_orders(config, stream, range(30), linger_ms=600_000)
    seen: list[int] = []
    with Consumer(stream, group="g", config=config) as consumer:
        assert consumer.run(lambda record: seen.append(record.value["number"]), max_records=12) == 12
        assert consumer.run(lambda record: seen.append(record.value["number"]), max_records=18) == 18
    assert seen == list(range(30))


def test_a_record_whose_handler_fails_goes_to_the_dead_letters_after_its_retries(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put_orders(config, stream, range(5))
    tries: list[int] = []

    def handle(record: Record) -> None:
        tries.append(record.value["number"])
        if record.value["number"] == 2:
            raise RuntimeError("no lamp")

    with Consumer(stream, group="g", config=config) as consumer:
        consumer.run(handle, retries=2, max_records=5)
    assert tries == [0, 1, 2, 2, 2, 3, 4]
    [(about, message)] = dead_letters(config, f"{stream}.dead", 1)
    assert (about["error"], about["text"], about["attempts"], about["index"]) == ("RuntimeError", "no lamp", 3, 2)
    assert message.key() == b"lamp"
    assert message.value()[:1] == b"\x00", "raw bytes as they lay in the log"


def test_foreign_and_undecodable_messages_go_to_the_dead_letters_and_the_shard_moves_on(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put_orders(config, stream, range(3))
    plain = PlainProducer({"bootstrap.servers": config.connection.bootstrap})
    plain.produce(stream, value=b"hello", partition=0)
    plain.produce(stream, value=b"\x00\x00\x00\x00\x01junk", partition=0, headers=[("headrace", b"\x01rubbish")])
    plain.flush(10)
    put_orders(config, stream, range(3, 6))
    with Consumer(stream, group="g", config=config) as consumer:
        assert read_numbers(consumer, 6) == list(range(6))
        assert consumer.stats.bad == 2
    letters = dead_letters(config, f"{stream}.dead", 2)
    assert [message.value() for _, message in letters] == [b"hello", b"\x00\x00\x00\x00\x01junk"]
    assert "foreign" in letters[0][0]["text"]


def test_repeats_of_a_replaying_producer_are_dropped_also_by_the_next_member(order_config: Make) -> None:
    config, stream = order_config(shards=2)

    def load(numbers: range) -> None:
        with Producer(stream, config=config, name="loader") as producer:
            for n in numbers:
                producer.put({"item": "x", "number": n, "note": None}, key=f"k{n % 7}", position=n)
            producer.flush(30)

    load(range(60))
    with Consumer(stream, group="g", config=config) as consumer:
        assert sorted(read_numbers(consumer, 60)) == list(range(60))
    load(range(30, 90))
    with Consumer(stream, group="g", config=config) as consumer:
        assert sorted(read_numbers(consumer, 30)) == list(range(60, 90))
        assert consumer.stats.repeats_dropped == 30


def test_a_record_with_a_hash_key_of_its_own_is_judged_by_that_one_when_its_aggregate_is_partly_a_repeat(
    order_config: Make,
) -> None:
    config, stream = order_config(shards=2)
    low, high = ("k0", 0), ("k0", HASH_SPACE - 1)  # the key's own hash is in one half: one of the two is elsewhere

    def load(*positions: tuple[int, tuple[str, int]]) -> None:
        with Producer(stream, config=config, name="loader") as producer:
            for n, (key, hashed) in positions:
                value = {"item": "x", "number": n, "note": None}
                producer.put(value, key=key, position=n, hash_key=hashed, headers=[("mine", b"1")])
            producer.flush(30)

    load((1, low), (5, high))
    reshard.merge(stream, "s0", "s1", config=config)
    load((1, low), (3, low), (5, high), (6, high))  # one aggregate now: 3 is new in the lower half
    with Consumer(stream, group="g", config=config) as consumer:
        records = read_records(consumer, 4)
        assert sorted(record.value["number"] for record in records) == [1, 3, 5, 6]
        assert {tuple(record.headers) for record in records} == {(("mine", b"1"),)}
        assert consumer.stats.repeats_dropped == 2


def test_two_members_share_the_shards_and_each_record_is_handled_once(order_config: Make) -> None:
    config, stream = order_config(shards=4)
    seen: dict[int, list[int]] = {0: [], 1: []}
    stop = threading.Event()

    def work(member: int) -> None:
        with Consumer(stream, group="g", config=config) as consumer:
            while not stop.is_set():
                seen[member].extend(record.value["number"] for record in consumer.read(0.3))

    with Producer(stream, config=config, linger_ms=5) as producer:
        producer.flush(1)
        threads = [threading.Thread(target=work, args=(member,)) for member in seen]
        for thread in threads:
            thread.start()
        number = 0
        deadline = time.monotonic() + 60
        while not (seen[0] and seen[1]):
            assert time.monotonic() < deadline, "both members should get shards"
            for _ in range(20):
                producer.put({"item": "x", "number": number, "note": None}, key=f"k{number}")
                number += 1
            time.sleep(0.02)
        producer.flush(30)
    while len(seen[0]) + len(seen[1]) < number:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert sorted(seen[0] + seen[1]) == list(range(number))


def test_latest_starts_a_new_group_at_the_end(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put_orders(config, stream, range(10))
    with Consumer(stream, group="late", config=config, start="latest") as consumer:
        assert consumer.read(3.0) == []
        consumer.commit()
        put_orders(config, stream, range(10, 20))
        assert read_numbers(consumer, 10) == list(range(10, 20))


def test_order_per_key_holds_over_splits_and_merges_under_load(order_config: Make) -> None:
    config, stream = order_config(shards=2)
    stop = threading.Event()
    put: dict[str, list[int]] = {}
    handled: dict[str, list[int]] = {}
    acknowledged: list[Any] = []

    def produce() -> None:
        with Producer(stream, config=config, linger_ms=3) as producer:
            n = 0
            while not stop.is_set():
                key = f"k{n % 20}"
                put.setdefault(key, []).append(n)
                acknowledged.append(producer.put({"item": "x", "number": n, "note": None}, key=key))
                n += 1
                if n % 50 == 0:
                    time.sleep(0.01)
            producer.flush(30)

    def consume() -> None:
        with Consumer(stream, group="g", config=config) as consumer:
            while not stop.is_set() or sum(map(len, handled.values())) < sum(map(len, put.values())):
                for record in consumer.read(0.3):
                    handled.setdefault(record.key, []).append(record.value["number"])
            consumer.read(0)  # says that the last ones are handled: the other member may read on for a moment

    threads = [threading.Thread(target=work) for work in (produce, consume, consume)]
    with Producer(stream, config=config):
        pass
    for thread in threads:
        thread.start()
    for _ in range(3):
        with ControlLog(config.connection, config.stream(stream)) as control:
            leaves = control.map.leaves
        children = reshard.split(stream, leaves[0].id, config=config).children
        reshard.merge(stream, children[1], leaves[1].id, config=config)
    stop.set()
    for thread in threads:
        thread.join(90)
    assert first_difference(handled, put) is None
    assert all(receipt.done() for receipt in acknowledged)


def test_an_unread_parent_that_retention_trimmed_stops_with_a_clear_error(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put_orders(config, stream, range(10), linger_ms=0)
    with Consumer(stream, group="g", config=config) as consumer:
        assert len(read_numbers(consumer, 10)) == 10
    for start in range(10, 40, 10):
        put_orders(config, stream, range(start, start + 10), linger_ms=0)
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": config.connection.bootstrap})
    plain = PlainConsumer({"bootstrap.servers": config.connection.bootstrap, "group.id": "x"})
    _, end = plain.get_watermark_offsets(TopicPartition(stream, 0), timeout=10)
    plain.close()
    for future in admin.delete_records([TopicPartition(stream, 0, end - 1)]).values():
        future.result(10)
    with Consumer(stream, group="g", config=config) as consumer, pytest.raises(TrimmedError, match="retention"):
        read_numbers(consumer, 30)


def test_an_unknown_stream_is_a_clear_error(order_config: Make) -> None:
    config, stream = order_config()
    with pytest.raises(UnknownStreamError, match="headrace stream create"):
        Consumer(stream, group="g", config=config)
    with pytest.raises(ConfigError, match="earliest"):
        Consumer(stream, group="g", config=config, start="yesterday")


def test_partitions_added_by_another_tool_are_not_shards(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put_orders(config, stream, range(3))
    Topics(config.connection).set_partitions(stream, 2)
    plain = PlainProducer({"bootstrap.servers": config.connection.bootstrap})
    plain.produce(stream, value=b"foreign", partition=1)
    plain.flush(10)
    with Consumer(stream, group="g", config=config) as consumer:
        assert read_numbers(consumer, 3) == [0, 1, 2]
        assert consumer.read(1.0) == []
        assert consumer.stats.bad == 0
