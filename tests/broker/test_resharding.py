"""Splits and merges on a real broker: rewinds over a lineage, pending reshards, foreign hands."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import Producer as PlainProducer

from pipeline import Consumer, Producer, reshard, rewind
from pipeline.errors import ControlLogError, ReshardRefusedError, StopError, StreamConflictError, UpgradeRequiredError
from pipeline.kafka.markers import Markers
from pipeline.kafka.topics import Topics
from pipeline.model.shards import PREPARE, Shard, shard_event
from pipeline.reshard.control_log import ControlLog

Make = Callable[..., Any]
KEYS = 12


def put(config: Any, stream: str, numbers: range) -> None:
    with Producer(stream, config=config, linger_ms=1) as producer:
        for n in numbers:
            producer.put({"item": "x", "number": n, "note": None}, key=f"k{n % KEYS}")
        producer.flush(30)


def read(config: Any, stream: str, group: str, count: int, **options: Any) -> list[tuple[str, int]]:
    out: list[tuple[str, int]] = []
    deadline = time.monotonic() + 60
    with Consumer(stream, group=group, config=config, commit_interval_s=0.2, **options) as consumer:
        while len(out) < count:
            assert time.monotonic() < deadline, f"{len(out)} of {count} came"
            out.extend((record.key, record.value["number"]) for record in consumer.read(0.3))
        assert consumer.read(1.0) == [], "and no more"
    return out


def in_order(records: list[tuple[str, int]]) -> bool:
    newest: dict[str, int] = {}
    for key, number in records:
        if number <= newest.get(key, -1):
            return False
        newest[key] = number
    return True


def grown(config: Any, stream: str) -> None:
    """A stream whose one shard was split, and the children merged again, with records in every generation."""
    put(config, stream, range(60))
    children = reshard.split(stream, "s0", config=config).children
    put(config, stream, range(60, 120))
    reshard.merge(stream, *children, config=config)
    put(config, stream, range(120, 180))


def append_raw(config: Any, topic: str, event: dict[str, Any]) -> None:
    plain = PlainProducer({"bootstrap.servers": config.connection.bootstrap})
    plain.produce(topic, key=str(time.monotonic_ns()), value=json.dumps(event).encode())
    assert plain.flush(10) == 0


def test_a_new_group_reads_every_generation_in_order(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    grown(config, stream)
    records = read(config, stream, "g", 180)
    assert sorted(number for _, number in records) == list(range(180))
    assert in_order(records)


def test_a_rewound_group_replays_parents_first_at_any_depth(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    grown(config, stream)
    read(config, stream, "g", 180)
    rewind(stream, "g", "earliest", config=config)
    again = read(config, stream, "g", 180)
    assert sorted(number for _, number in again) == list(range(180))
    assert in_order(again)


def test_a_group_starts_at_a_time_and_reads_all_descendants_of_what_it_reads(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, range(60))
    time.sleep(0.05)
    middle = datetime.now(UTC)
    put(config, stream, range(60, 90))
    reshard.split(stream, "s0", config=config)
    put(config, stream, range(90, 150))
    records = read(config, stream, "timed", 90, start=middle)
    assert sorted(number for _, number in records) == list(range(60, 150))
    assert in_order(records)


def test_latest_passes_over_all_generations_and_takes_what_comes(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    grown(config, stream)
    with Consumer(stream, group="late", config=config, start="latest", commit_interval_s=0.2) as consumer:
        assert consumer.read(4.0) == []
        put(config, stream, range(180, 200))
        seen: list[int] = []
        deadline = time.monotonic() + 30
        while len(seen) < 20:
            assert time.monotonic() < deadline
            seen.extend(record.value["number"] for record in consumer.read(0.3))
    assert sorted(seen) == list(range(180, 200))


def test_a_group_with_members_is_not_rewound(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, range(5))
    with Consumer(stream, group="g", config=config) as consumer:
        assert len(consumer.read(20)) > 0
        with pytest.raises(StopError, match="stop its consumers"):
            rewind(stream, "g", "earliest", config=config)


def prepare(config: Any, stream: str, control: ControlLog) -> None:
    """A resharder that dies right after PREPARE."""
    Topics(config.connection).set_partitions(stream, 2)
    root = control.map.shards["s0"]
    middle = (root.low + root.high) // 2
    children = [Shard("s1", root.low, middle, stream, 0), Shard("s2", middle, root.high, stream, 1)]
    scan_from = {"s0": Markers(config.connection).end_offset((stream, 0), 10)}
    event = {
        "type": PREPARE,
        "reshard": "dead",
        "parents": ["s0"],
        "children": [shard_event(child) for child in children],
        "scan_from": scan_from,
    }
    assert "dead" in control.append(event).pending


def test_a_producer_finishes_the_reshard_of_a_resharder_that_died(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, linger_ms=1) as producer, ControlLog(config.connection, config.stream(stream)) as log:
        producer.put({"item": "x", "number": 1, "note": None}, key="k").result(30)
        prepare(config, stream, log)
        held = producer.put({"item": "x", "number": 2, "note": None}, key="k").result(30)
        seal = log.barrier().shards["s0"].seal
        assert seal is not None
        assert (held.shard, held.offset) == ("s0", seal - 1), "delivered before END, acknowledged after COMMIT"
        assert producer.stats.hold_ms > 0
        assert producer.put({"item": "x", "number": 3, "note": None}, key="k").result(30).shard in ("s1", "s2")


def test_a_second_resharder_finishes_a_pending_reshard_before_its_own(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, range(10))
    with ControlLog(config.connection, config.stream(stream)) as log:
        prepare(config, stream, log)
        done = reshard.merge(stream, "s1", "s2", config=config)
        assert done.children == ("s3",)
        put(config, stream, range(10, 20))
        assert in_order(read(config, stream, "g", 20))


def test_a_reshard_that_is_not_valid_is_refused_with_the_reason(order_config: Make) -> None:
    config, stream = order_config(shards=3, partitions_max=4)
    put(config, stream, range(3))
    with pytest.raises(ReshardRefusedError, match="open shards: s0, s1, s2"):
        reshard.split(stream, "s9", config=config)
    with pytest.raises(ReshardRefusedError, match="cannot be split"):
        reshard.split(stream, "s0", at=0, config=config)
    with pytest.raises(ReshardRefusedError, match="not neighbours"):
        reshard.merge(stream, "s0", "s2", config=config)
    reshard.split(stream, "s0", config=config)
    with pytest.raises(ReshardRefusedError, match="partitions_max"):
        reshard.split(stream, "s1", config=config)


def test_a_reshard_passes_over_a_partition_that_another_tool_wrote_to(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, range(3))
    Topics(config.connection).set_partitions(stream, 2)
    plain = PlainProducer({"bootstrap.servers": config.connection.bootstrap})
    plain.produce(stream, value=b"foreign", partition=1)
    plain.flush(10)
    reshard.split(stream, "s0", config=config)
    with ControlLog(config.connection, config.stream(stream)) as log:
        assert log.map.shards["s2"].partition == 2


def test_an_event_of_a_newer_version_stops_everyone_with_a_word_to_upgrade(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    producer = Producer(stream, config=config, linger_ms=1)
    producer.put({"item": "x", "number": 1, "note": None}, key="k").result(30)
    append_raw(config, f"{stream}.control", {"type": "TELEPORT"})
    receipt = producer.put({"item": "x", "number": 2, "note": None}, key="k")
    with pytest.raises(UpgradeRequiredError, match="TELEPORT"):
        receipt.result(30)
    producer.close()
    with pytest.raises(UpgradeRequiredError):
        Consumer(stream, group="g", config=config)


def test_an_event_that_is_not_valid_is_ignored_by_all(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, linger_ms=1) as producer:
        append_raw(config, f"{stream}.control", {"type": "COMMIT", "reshard": "none", "seals": {"s0": 0}})
        assert producer.put({"item": "x", "number": 1, "note": None}, key="k").result(30).shard == "s0"


def test_a_missing_control_topic_is_named(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, range(3))
    topics = Topics(config.connection)
    topics.delete([f"{stream}.control"])
    deadline = time.monotonic() + 20
    while topics.describe(f"{stream}.control") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(StreamConflictError, match=f"{stream}.control does not"):
        Consumer(stream, group="g", config=config)
    with pytest.raises(StreamConflictError):
        Producer(stream, config=config)


def test_a_data_topic_that_was_recreated_is_refused(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, range(3))
    topics = Topics(config.connection)
    topics.delete([stream])
    deadline = time.monotonic() + 20
    while topics.describe(stream) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    topics.create(stream, 1, {})
    for start in (lambda: Producer(stream, config=config), lambda: Consumer(stream, group="g", config=config)):
        with pytest.raises(StreamConflictError, match="created again"):
            start()


def test_a_control_log_that_lost_its_beginning_is_refused(order_config: Make) -> None:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    config, stream = order_config(shards=1)
    put(config, stream, range(3))
    admin = AdminClient({"bootstrap.servers": config.connection.bootstrap})
    Topics(config.connection)
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    entry = ConfigEntry("cleanup.policy", "compact,delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, f"{stream}.control", incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)
    for future in admin.delete_records([TopicPartition(f"{stream}.control", 0, 1)]).values():
        future.result(10)
    with pytest.raises(ControlLogError, match="beginning"):
        Consumer(stream, group="g", config=config)
