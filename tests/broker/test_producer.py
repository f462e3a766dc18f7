"""The producer on a real broker and registry."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer as PlainConsumer
from confluent_kafka import TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from prometheus_client import REGISTRY

from pipeline import Producer
from pipeline.errors import (
    BrokerUnavailableError,
    BufferFullError,
    ClosedError,
    ConfigError,
    FencedError,
    HeadraceError,
    RecordTooLargeError,
    SchemaMismatchError,
    StreamConflictError,
    UnknownStreamError,
)
from pipeline.kafka.topics import Topics

Make = Callable[..., Any]


def order(number: int, item: str = "lamp") -> dict[str, Any]:
    return {"item": item, "number": number, "note": None}


def raw_messages(bootstrap: str, topic: str, partitions: int) -> list[Any]:
    """Everything in a topic, read by the plain client alone."""
    consumer = PlainConsumer({"bootstrap.servers": bootstrap, "group.id": "raw", "enable.auto.commit": False})
    out: list[Any] = []
    try:
        for partition in range(partitions):
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            consumer.assign([TopicPartition(topic, partition, 0)])
            deadline = time.monotonic() + 20
            while end and (not out or out[-1].partition() != partition or out[-1].offset() < end - 1):
                assert time.monotonic() < deadline
                message = consumer.poll(0.2)
                if message is not None and not message.error():
                    out.append(message)
    finally:
        consumer.close()
    return out


def read_entries(config: Any, stream: str, partitions: int) -> list[dict[str, Any]]:
    """Every record of a topic, by the plain client's own deserializer: of aggregates, and those that went alone."""
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": config.connection.registry}))
    context = SerializationContext(stream, MessageField.VALUE)
    found: list[dict[str, Any]] = []
    for message in raw_messages(config.connection.bootstrap, stream, partitions):
        value = deserialize(message.value(), context)
        found += value["records"] if value and "records" in value else [{"key": message.key().decode(), "value": value}]
    return found


def test_receipts_name_rising_places_when_records_of_one_key_are_acknowledged(order_config: Make) -> None:
    config, stream = order_config()
    with Producer(stream, config=config, linger_ms=1) as producer:
        receipts = [producer.put(order(n), key="lamp") for n in range(300)]
        results = [receipt.result(timeout=30) for receipt in receipts]
    assert [r.seq for r in results] == list(range(300))
    assert len({r.shard for r in results}) == 1
    orders = [r.order for r in results]
    assert all(before < after for before, after in pairwise(orders))
    assert receipts[0].result() == results[0], "a receipt resolves once and stays"


def test_a_plain_confluent_client_reads_the_aggregates(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config) as producer:
        for n in range(50):
            producer.put(order(n), key="lamp", id=f"id-{n}", headers=[("trace", b"\x01")])
        producer.put(None, key="gone")
    registry = SchemaRegistryClient({"url": config.connection.registry})
    deserialize = AvroDeserializer(registry)
    entries = []
    for message in raw_messages(config.connection.bootstrap, stream, 1):
        decoded = deserialize(message.value(), SerializationContext(stream, MessageField.VALUE))
        entries.extend(decoded["records"])
    assert [e["value"]["number"] for e in entries[:50]] == list(range(50))
    assert entries[7]["id"] == "id-7"
    assert entries[7]["headers"] == [{"key": "trace", "value": b"\x01"}]
    assert entries[50]["key"] == "gone"
    assert entries[50]["value"] is None


PUT_A_THOUSAND = """
import sys
from pipeline import Producer
with Producer(sys.argv[1], linger_ms=1000, bytes_max=2048) as producer:
    for n in range(1_000):
        value = {"item": "lamp", "number": n, "note": None} if n % 7 else None
        producer.put(value, key=f"key-{n % 5}", id=f"id-{n}" if n % 3 else None)
print(type(producer.put).__name__)
"""


def test_python_alone_writes_what_compiled_code_writes(order_config: Make, tmp_path: Path) -> None:
    found = {}
    for compiled, putting in (("1", "Putter"), ("0", "method")):
        config, stream = order_config()
        named = {"HEADRACE_CONFIG": str(tmp_path / "headrace.yml"), "HEADRACE_COMPILED": compiled}
        command = [sys.executable, "-c", PUT_A_THOUSAND, stream]
        done = subprocess.run(command, env=os.environ | named, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.split() == [putting]
        found[compiled] = [{**entry, "timestamp": None} for entry in read_entries(config, stream, 2)]
    assert found["0"] == found["1"]
    assert len(found["0"]) == 1_000


def test_many_records_travel_in_one_message_when_they_come_within_the_linger(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, linger_ms=600_000, records_max=100) as producer:
        for n in range(250):
            producer.put(order(n), key="lamp")
        producer.flush(30)
    messages = raw_messages(config.connection.bootstrap, stream, 1)
    assert len(messages) == 3, "100 by count, 100 by count, 50 by flush"


@pytest.mark.parametrize(("codec", "in_the_log"), [(None, 3), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4), ("none", 0)])
def test_messages_lie_compressed_as_asked(order_config: Make, stack: Any, codec: str | None, in_the_log: int) -> None:
    config, stream = order_config(shards=1)
    options = {} if codec is None else {"compression": codec}
    with Producer(stream, config=config, linger_ms=1000, **options) as producer:
        for n in range(200):
            producer.put(order(n), key="lamp")
    (segment,) = (stack.home / "data").glob(f"*/{stream}-0/*.log")
    attributes = int.from_bytes(segment.read_bytes()[21:23], "big")  # of the first batch, by Kafka's record format
    assert attributes & 0b111 == in_the_log
    assert [entry["value"]["number"] for entry in read_entries(config, stream, 1)] == list(range(200))


def test_an_aggregate_is_sealed_when_its_bytes_are_full(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, linger_ms=600_000, bytes_max=2048) as producer:
        for n in range(100):
            producer.put({"item": "x" * 100, "number": n, "note": None}, key="lamp")
        producer.flush(30)
    sizes = [len(m.value()) for m in raw_messages(config.connection.bootstrap, stream, 1)]
    assert len(sizes) > 4
    assert max(sizes) <= 2048 + 64


def test_a_lone_record_is_acknowledged_after_the_linger_without_flush(order_config: Make) -> None:
    config, stream = order_config()
    with Producer(stream, config=config, linger_ms=20) as producer:
        assert producer.put(order(1), key="lamp").result(timeout=30).index == 0


def test_a_record_that_does_not_fit_raises_and_the_rest_of_its_aggregate_arrives(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, linger_ms=600_000) as producer:
        before = producer.put(order(1), key="lamp")
        with pytest.raises(SchemaMismatchError) as raised:
            producer.put({"item": "lamp", "number": "many", "note": None}, key="lamp")
        after = producer.put(order(2), key="lamp")
        producer.flush(30)
        assert raised.value.field == "number"
        assert "many" not in str(raised.value), "an error never shows a record's content"
        assert (before.result(0).index, after.result(0).index) == (0, 1)


def test_an_oversized_record_raises_at_put_and_one_above_the_aggregate_goes_alone(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, bytes_max=1024) as producer:
        with pytest.raises(RecordTooLargeError):
            producer.put({"item": "x" * 1_100_000, "number": 1, "note": None}, key="lamp")
        producer.put(order(1), key="lamp")
        alone = producer.put({"item": "x" * 5000, "number": 2, "note": None}, key="lamp")
        producer.put(order(3), key="lamp")
        producer.flush(30)
        assert alone.result(0).index == 0
    assert len(raw_messages(config.connection.bootstrap, stream, 1)) == 3


def test_put_raises_buffer_full_when_the_broker_hangs_and_nothing_taken_is_lost(order_config: Make, frozen_broker: Any) -> None:
    config, stream = order_config(shards=1)
    producer = Producer(stream, config=config, buffer_bytes_max=1 << 20, linger_ms=5)
    producer.put(order(0), key="lamp").result(timeout=30)
    frozen_broker()
    taken: list[Any] = []

    def put_for_ever() -> None:
        taken.extend(producer.put(order(n), key="lamp", timeout=0.2) for n in count(1))

    with pytest.raises(BufferFullError) as raised:
        put_for_ever()
    assert raised.value.buffered_bytes <= 1 << 20
    assert producer._state.buffered_bytes <= 1 << 20
    frozen_broker.thaw()
    producer.flush(60)
    assert [r.result(0).seq for r in taken] == list(range(1, len(taken) + 1))
    producer.close()


def test_receipts_resolve_with_an_error_when_closed_while_the_broker_hangs(order_config: Make, frozen_broker: Any) -> None:
    config, stream = order_config(shards=1)
    producer = Producer(stream, config=config, linger_ms=1)
    producer.put(order(0), key="lamp").result(timeout=30)
    frozen_broker()
    receipt = producer.put(order(1), key="lamp")
    with pytest.raises(BrokerUnavailableError):
        receipt.result(timeout=0.3)
    with pytest.raises(BrokerUnavailableError):
        producer.close(timeout=0.5)
    with pytest.raises(ClosedError):
        receipt.result(timeout=0)
    with pytest.raises(ClosedError):
        producer.put(order(2), key="lamp")


def test_a_replay_from_stored_positions_makes_the_same_dedup_ids(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, name="loader") as first:
        seqs = [first.put(order(n), key="lamp", position=n) for n in range(10)]
        first.flush(30)
        assert first.acknowledged_position == 9
    with Producer(stream, config=config, name="loader") as second:
        again = [second.put(order(n), key="lamp", position=n) for n in range(5, 15)]
        second.flush(30)
    assert [r.result(0).seq for r in seqs[5:]] == [r.result(0).seq for r in again[:5]]
    assert second.incarnation == first.incarnation + 1


def test_an_older_producer_is_fenced_when_a_newer_one_claims_its_name(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    old = Producer(stream, config=config, name="twin", linger_ms=1)
    old.put(order(1), key="lamp").result(timeout=30)
    new = Producer(stream, config=config, name="twin", linger_ms=1)
    late = old.put(order(2), key="lamp")
    with pytest.raises(FencedError):
        late.result(timeout=30)
    with pytest.raises(FencedError):
        old.put(order(3), key="lamp")
    assert old.stats.fenced == 1
    new.put(order(4), key="lamp").result(timeout=30)
    new.close()
    old.close()


def test_acknowledged_position_stays_behind_what_is_not_acknowledged(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, name="steps", linger_ms=600_000) as producer:
        assert producer.acknowledged_position == -1
        producer.put(order(0), key="lamp", position=7)
        assert producer.acknowledged_position == 6
        producer.flush(30)
        assert producer.acknowledged_position == 7


def test_positions_have_to_rise_and_need_a_name(order_config: Make) -> None:
    config, stream = order_config()
    with Producer(stream, config=config) as producer, pytest.raises(ValueError, match="named"):
        producer.put(order(1), key="lamp", position=1)
    with Producer(stream, config=config, name="p") as producer:
        producer.put(order(1), key="lamp", position=5)
        with pytest.raises(ValueError, match="rise"):
            producer.put(order(1), key="lamp", position=5)


def test_an_unknown_stream_is_named_with_those_there_are(order_config: Make) -> None:
    config, stream = order_config()
    with pytest.raises(UnknownStreamError, match=stream):
        Producer("nosuch", config=config)


def test_an_unknown_option_is_refused(order_config: Make) -> None:
    config, stream = order_config()
    with pytest.raises(ConfigError, match="linger_sm"):
        Producer(stream, config=config, linger_sm=5)


def test_a_foreign_topic_of_the_same_name_is_refused(order_config: Make) -> None:
    config, stream = order_config()
    Topics(config.connection).create(stream, 1, {})
    with pytest.raises(StreamConflictError, match=stream):
        Producer(stream, config=config)


def test_an_unreachable_broker_is_a_clear_error(order_config: Make) -> None:
    config, _ = order_config()
    lost = config.connection.model_copy(update={"bootstrap": "127.0.0.1:1"})
    config._connection = lost
    with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1"):
        Topics(lost, timeout_s=2).check_cluster()


def test_puts_from_many_threads_keep_each_threads_order(order_config: Make) -> None:
    import threading

    config, stream = order_config(shards=3)
    receipts: dict[int, list[Any]] = {k: [] for k in range(4)}
    with Producer(stream, config=config, linger_ms=2) as producer:

        def work(k: int) -> None:
            for n in range(500):
                receipts[k].append(producer.put(order(n), key=f"key-{k}"))

        threads = [threading.Thread(target=work, args=(k,)) for k in receipts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        producer.flush(30)
    for k, pending in receipts.items():
        orders = [p.result(0).order for p in pending]
        assert orders == sorted(orders), f"thread {k}"
    assert len({p.result(0).seq for pending in receipts.values() for p in pending}) == 2000


KILLED = """
import os, signal, sys
from pipeline import Producer, load_config
with Producer(sys.argv[2], config=load_config(sys.argv[1]), name="killed", linger_ms=1) as producer:
    for n in range(200):
        producer.put({"item": "lamp", "number": n, "note": None}, key="lamp", position=n)
        if n == 120:
            producer.flush(30)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_acknowledged_is_in_the_log_when_the_producer_is_killed(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    died = subprocess.run([sys.executable, "-c", KILLED, str(config.path), stream], timeout=60, check=False)
    assert died.returncode == -9
    numbers = [entry["value"]["number"] for entry in read_entries(config, stream, 1)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 121


def test_errors_of_ours_only_when_the_config_names_another_cluster(order_config: Make) -> None:
    config, stream = order_config()
    config._connection = config.connection.model_copy(update={"cluster_id": "somebody-elses-cluster"})
    with pytest.raises(HeadraceError, match="somebody-elses-cluster"):
        Producer(stream, config=config)


def test_metrics_tell_of_records_aggregates_and_times(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, records_max=10) as producer:
        for n in range(25):
            producer.put(order(n), key="lamp")
        producer.flush(30)

    def told(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"headrace_producer_{name}", {"stream": stream})

    assert told("records_put_total") == told("records_acknowledged_total") == 25
    assert told("aggregates_sent_total") == told("records_per_aggregate_count") == 3
    assert told("records_per_aggregate_sum") == 25
    assert told("buffering_seconds_count") == told("request_seconds_count") == 3
    assert told("records_sent_again_total") == told("records_failed_total") == 0
