"""What a producer is given or suffers: each its clear error, and every receipt resolves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import psutil
import pytest

from pipeline import Producer
from pipeline.errors import BufferFullError, ClosedError, RecordTooLargeError, SchemaMismatchError, StopError
from pipeline.kafka.topics import Topics
from tests.broker.test_producer import order, read_entries

Make = Callable[..., Any]


@pytest.fixture
def producer(order_config: Make) -> Iterator[Producer]:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, linger_ms=1) as made:
        yield made
        assert made.put(order(1), key="after").result(30).shard == "s0", "the producer goes on"


BAD_VALUES: dict[str, Any] = {
    "a list": [],
    "no dict": "text",
    "a missing field": {"item": "lamp"},
    "an unknown field": order(1) | {"more": 1},
    "bytes for a string": order(1) | {"item": b"lamp"},
    "a bool for an int": order(True),
    "NaN for an int": order(1) | {"number": math.nan},
    "infinity for an int": order(1) | {"number": math.inf},
    "an int of 32 bits and one": order(2**31),
    "a huge int": order(10**400),
    "a lone surrogate": order(1, item="\ud800"),
}


def test_a_value_that_does_not_fit_is_refused_and_nothing_else_is_affected(producer: Producer) -> None:
    for number, (what, value) in enumerate(BAD_VALUES.items()):
        before = producer.put(order(0), key="lamp")
        with pytest.raises(SchemaMismatchError):
            producer.put(value, key="lamp")
        assert before.result(30).seq == number, what


def test_a_partition_key_that_is_no_text_is_refused(producer: Producer) -> None:
    keys: list[Any] = [None, 5, b"lamp", "\ud800"]
    for key in keys:
        with pytest.raises(SchemaMismatchError, match="partition key"):
            producer.put(order(1), key=key)


def test_an_empty_key_is_a_key_and_one_of_10_mb_is_too_large(producer: Producer) -> None:
    assert producer.put(order(1), key="").result(30).index == 0
    with pytest.raises(RecordTooLargeError):
        producer.put(order(1), key="k" * 10_000_000)


def test_a_hash_key_outside_the_space_is_refused(producer: Producer) -> None:
    for hash_key in (-1, 2**64):
        with pytest.raises(ValueError, match="hash_key"):
            producer.put(order(1), key="lamp", hash_key=hash_key)


def test_a_closed_producer_takes_nothing(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    producer = Producer(stream, config=config)
    producer.put(order(1), key="lamp")
    producer.close()
    producer.close()
    with pytest.raises(ClosedError):
        producer.put(order(1), key="lamp")
    with pytest.raises(ClosedError):
        producer.put_many([order(n) for n in range(1_000)])


def test_receipts_fail_with_what_to_do_when_the_topic_is_deleted(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    producer = Producer(stream, config=config, linger_ms=1)
    producer.put(order(0), key="lamp").result(30)
    Topics(config.connection).delete([stream])
    receipt = producer.put(order(1), key="lamp")
    with pytest.raises(StopError, match=stream):
        receipt.result(30)
    with pytest.raises(StopError):
        producer.put(order(2), key="lamp")
    producer.close(timeout=1)


def test_memory_stays_within_the_bound_while_the_broker_hangs(order_config: Make, frozen_broker: Any) -> None:
    config, stream = order_config(shards=2)
    bound = 32 << 20
    producer = Producer(stream, config=config, buffer_bytes_max=bound, linger_ms=5)
    producer.put(order(0), key="lamp").result(30)
    process = psutil.Process()
    before = process.memory_info().rss
    frozen_broker()
    for cause in range(3):
        with pytest.raises(BufferFullError):
            _ = [producer.put(order(n, item="x" * 50), key=f"key-{n % 50}", timeout=0.3) for n in count()] and cause
    grown = process.memory_info().rss - before
    assert producer._state.buffered_bytes <= bound
    # librdkafka keeps a copy of what was handed over, compressed: so at most twice the bound, and the clients' own buffers.
    assert grown < 2 * bound + (24 << 20)
    frozen_broker.thaw()
    producer.flush(60)
    producer.close()
    assert producer.stats.records_acknowledged == producer.stats.records_put
    assert len(read_entries(config, stream, 2)) == producer.stats.records_put
