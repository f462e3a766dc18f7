"""One suite on the broker and on the stream in memory (pipeline/testing): handlers tested there behave the same here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import pytest
from confluent_kafka import Producer as PlainProducer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline import Consumer, Producer, reshard
from pipeline.deadletter.log import DeadLetterLog
from pipeline.errors import HandlerError, StopError, TrimmedError
from pipeline.model.record import Record
from pipeline.testing import MemoryStream
from tests.broker.conftest import ORDER_SCHEMA


class Stream(Protocol):
    """What the suite needs of either."""

    def put_many(self, pairs: Iterable[tuple[str, int]], id: str | None = None) -> None: ...
    def put_raw(self, value: bytes) -> None: ...
    def split(self, shard: str) -> list[str]: ...
    def merge(self, shard: str, other: str) -> str: ...
    def trim(self, first: int) -> None: ...
    def consumer(self, group: str = "g", **options: Any) -> Consumer: ...
    def dead(self) -> list[tuple[str, int, int, int]]: ...


class InMemory:
    def __init__(self, shards: int, **options: Any) -> None:
        self.stream = MemoryStream(ORDER_SCHEMA, shards=shards, **options)
        self.split, self.merge = self.stream.split, self.stream.merge

    def put_many(self, pairs: Iterable[tuple[str, int]], id: str | None = None) -> None:
        self.stream.put_many([({"item": "x", "number": n, "note": None}, key) for key, n in pairs], id=id)

    def put_raw(self, value: bytes) -> None:
        self.stream.put_raw(value)

    def trim(self, first: int) -> None:
        self.stream.trim(0, first)

    def consumer(self, group: str = "g", **options: Any) -> Consumer:
        return self.stream.consumer(group, **options)

    def dead(self) -> list[tuple[str, int, int, int]]:
        return [(one.error, one.offset, one.index, one.attempts) for one in self.stream.dead_letters]


class OnBroker:
    def __init__(self, config: Any, name: str) -> None:
        self.config, self.name = config, name
        with Producer(name, config=config):
            pass

    def put_many(self, pairs: Iterable[tuple[str, int]], id: str | None = None) -> None:
        with Producer(self.name, config=self.config, linger_ms=600_000) as producer:
            for key, n in pairs:
                producer.put({"item": "x", "number": n, "note": None}, key=key, id=id)
            producer.flush(30)

    def put_raw(self, value: bytes) -> None:
        plain = PlainProducer({"bootstrap.servers": self.config.connection.bootstrap})
        plain.produce(self.name, value=value, partition=0)
        plain.flush(10)

    def split(self, shard: str) -> list[str]:
        return list(reshard.split(self.name, shard, config=self.config).children)

    def merge(self, shard: str, other: str) -> str:
        return str(reshard.merge(self.name, shard, other, config=self.config).children[0])

    def trim(self, first: int) -> None:
        admin = AdminClient({"bootstrap.servers": self.config.connection.bootstrap})
        for future in admin.delete_records([TopicPartition(self.name, 0, first)]).values():
            future.result(10)

    def consumer(self, group: str = "g", **options: Any) -> Consumer:
        return Consumer(self.name, group=group, config=self.config, **options)

    def dead(self) -> list[tuple[str, int, int, int]]:
        log = DeadLetterLog(self.config.connection, self.config.stream(self.name))
        try:
            letters = [kept.letter for kept in log.letters()]
        finally:
            log.close()
        return [(one.error, one.offset, one.index, one.attempts) for one in letters]


Make = Callable[..., Stream]


@pytest.fixture(params=["memory", "broker"])
def make(request: pytest.FixtureRequest) -> Make:
    def build(shards: int = 1, **options: Any) -> Stream:
        if request.param == "memory":
            return InMemory(shards, **options)
        return OnBroker(*request.getfixturevalue("order_config")(shards=shards, **options))

    return build


def numbers(records: Iterable[Record]) -> list[int]:
    return [record.value["number"] for record in records]


def take(consumer: Consumer, count: int, timeout_s: float = 30.0) -> list[Record]:
    """Read ``count`` records and say that they are handled."""
    found: list[Record] = []
    deadline = time.monotonic() + timeout_s
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} came"
        found += consumer.read(0.2)
    assert consumer.read(0.0) == []
    return found


def test_a_group_goes_on_where_it_committed_inside_an_aggregate(make: Make) -> None:
    stream = make()
    stream.put_many([("k", n) for n in range(10)])
    with stream.consumer() as consumer:
        seen: list[int] = []
        for record in consumer:
            if record.value["number"] == 4:
                break
            seen.append(record.value["number"])
    with stream.consumer() as consumer:
        assert seen + numbers(take(consumer, 6)) == list(range(10))


def test_failures_go_by_their_policy_and_bad_messages_to_the_dead_letters(make: Make) -> None:
    stream = make()
    stream.put_many([("k", n) for n in range(3)])
    stream.put_raw(b"not ours")
    stream.put_many([("k", n) for n in range(3, 5)])
    seen: list[int] = []

    def handle(record: Record) -> None:
        seen.append(record.value["number"])
        if record.value["number"] in (1, 3):
            raise ValueError("no")

    with stream.consumer() as consumer:
        assert consumer.run(handle, retries=1, max_records=3) == 3
        with pytest.raises(HandlerError):
            consumer.run(handle, retries=0, on_failure="stop")
        assert numbers(take(consumer, 2)) == [3, 4]
    assert seen == [0, 1, 1, 2, 3]
    assert stream.dead() == [("ValueError", 0, 1, 2), ("DecodeError", 1, -1, 1)]


def test_order_per_key_holds_over_a_split_and_a_merge(make: Make) -> None:
    stream = make(shards=2)
    keys = [f"k{n}" for n in range(6)]
    stream.put_many([(key, 0) for key in keys])
    left, right = stream.split("s0")
    stream.put_many([(key, 1) for key in keys])
    stream.merge(right, "s1")
    stream.put_many([(key, 2) for key in keys])
    with stream.consumer() as consumer:
        records = take(consumer, 18)
    by_key: dict[str, list[Record]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(record)
    assert {key: numbers(found) for key, found in by_key.items()} == {key: [0, 1, 2] for key in keys}
    assert all(found == sorted(found, key=lambda record: record.order) for found in by_key.values())
    assert left != right


def test_two_members_share_the_shards_and_a_leaver_hands_its_own_over(make: Make) -> None:
    stream = make(shards=2)
    seen: list[list[int]] = [[], []]
    deadline = time.monotonic() + 60
    with stream.consumer() as first, stream.consumer() as second:
        members = [first, second]

        def work(member: int) -> None:
            members[member].run(lambda record: seen[member].append(record.value["number"]))

        threads = [threading.Thread(target=work, args=(member,)) for member in (0, 1)]
        for thread in threads:
            thread.start()
        put = 0
        while not (seen[0] and seen[1]):
            assert time.monotonic() < deadline
            if put < 20:
                stream.put_many([(f"k{put}", put)])
                put += 1
        second.stop()
        threads[1].join(20)
        second.close()
        stream.put_many([(f"k{n}", n) for n in range(put, 40)])
        while len(seen[0]) + len(seen[1]) < 40:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.stop()
        threads[0].join(20)
    assert sorted(seen[0] + seen[1]) == list(range(40))


def test_explicit_ids_are_dropped_in_their_window_also_by_the_next_member(make: Make) -> None:
    stream = make(dedup="window 1h")
    stream.put_many([("k", 0)], id="one")
    stream.put_many([("k", 1)], id="one")
    with stream.consumer() as consumer:
        assert numbers(take(consumer, 1)) == [0]
    stream.put_many([("k", 2)], id="one")
    stream.put_many([("k", 3)], id="two")
    with stream.consumer() as consumer:
        assert numbers(take(consumer, 1)) == [3]


def test_a_group_seeks_while_it_is_alone(make: Make) -> None:
    stream = make()
    stream.put_many([("k", 0)])
    stream.put_many([("k", 1)])
    with stream.consumer() as consumer:
        records = take(consumer, 2)
        consumer.seek({0: records[1].offset})
        assert numbers(take(consumer, 1)) == [1]
        consumer.seek("earliest")
        assert numbers(take(consumer, 2)) == [0, 1]
        with stream.consumer() as other:
            other.read(0.2)
            with pytest.raises(StopError, match="still has members"):
                consumer.seek("earliest")


def test_what_retention_trimmed_unread_stops_or_is_counted(make: Make) -> None:
    stream = make()
    stream.put_many([("k", 0)])
    with stream.consumer() as consumer:
        take(consumer, 1)
    for n in range(1, 5):
        stream.put_many([("k", n)])
    stream.trim(3)
    with stream.consumer() as consumer, pytest.raises(TrimmedError, match="retention"):
        take(consumer, 1)
    with stream.consumer(on_trimmed="continue") as consumer:
        assert numbers(take(consumer, 2)) == [3, 4]
        assert consumer.stats.trimmed == 2


def test_workers_keep_each_keys_order(make: Make) -> None:
    stream = make(shards=2)
    stream.put_many([(f"k{n % 5}", n) for n in range(50)])
    seen: dict[str, list[int]] = {}
    with stream.consumer() as consumer:
        consumer.run(lambda record: seen.setdefault(record.key, []).append(record.value["number"]), workers=4, max_records=50)
    assert seen == {f"k{key}": list(range(key, 50, 5)) for key in range(5)}


class TestMemoryAlone:
    """What only a stream in memory lets a test do."""

    def test_a_crash_gives_what_was_not_committed_again(self) -> None:
        stream = MemoryStream(ORDER_SCHEMA, shards=1)
        stream.put_many([({"item": "x", "number": n, "note": None}, "k") for n in range(3)])
        consumer = stream.consumer(commit_interval_s=1_000)
        assert numbers(consumer.read(1.0)) == [0, 1, 2]
        stream.crash()
        with stream.consumer() as another:
            assert numbers(take(another, 3)) == [0, 1, 2]

    def test_a_redelivered_message_is_dropped(self) -> None:
        stream = MemoryStream(ORDER_SCHEMA, shards=1)
        stream.put({"item": "x", "number": 0, "note": None}, key="k")
        stream.redeliver()
        with stream.consumer() as consumer:
            take(consumer, 1)
            assert consumer.read(0.1) == []
            assert consumer.stats.repeats_dropped == 1
