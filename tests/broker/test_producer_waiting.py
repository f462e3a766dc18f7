"""What a producer does while records wait: coroutines, rate limits, expiry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pipeline import Producer
from pipeline.errors import BufferFullError, RecordExpiredError, SchemaMismatchError
from tests.broker.test_producer import order, raw_messages, read_entries

Make = Callable[..., Any]


def test_coroutines_get_receipts_in_the_order_in_which_they_started(order_config: Make) -> None:
    config, stream = order_config(shards=1)

    async def put_all(producer: Producer) -> list[Any]:
        return await asyncio.gather(*(producer.aput(order(n), key="lamp") for n in range(500)))

    with Producer(stream, config=config, linger_ms=5) as producer:
        receipts = asyncio.run(put_all(producer))
        assert [r.seq for r in receipts] == list(range(500))
        assert asyncio.run(put_all(producer))[0].seq == 500, "another event loop"


def test_a_coroutine_gets_the_error_of_its_record_and_the_others_go_on(order_config: Make) -> None:
    config, stream = order_config(shards=1)

    async def put_three(producer: Producer) -> list[Any]:
        bad = producer.aput({"item": 1}, key="lamp")
        good = [producer.aput(order(n), key="lamp") for n in range(2)]
        return await asyncio.gather(good[0], bad, good[1], return_exceptions=True)

    with Producer(stream, config=config, linger_ms=5) as producer:
        first, failed, second = asyncio.run(put_three(producer))
    assert isinstance(failed, SchemaMismatchError)
    assert (first.seq, second.seq) == (0, 1)


def test_coroutines_wait_for_room_in_their_order_and_the_event_loop_runs_on(order_config: Make, frozen_broker: Any) -> None:
    config, stream = order_config(shards=1)

    async def fill(producer: Producer) -> list[Any]:
        tasks = [asyncio.create_task(producer.aput(order(n), key="lamp")) for n in range(30)]
        while producer.stats.records_put < 10:
            await asyncio.sleep(0)
        with pytest.raises(BufferFullError):
            await producer.aput(order(99), key="lamp", timeout=0.1)
        frozen_broker.thaw()
        return await asyncio.gather(*tasks)

    with Producer(stream, config=config, linger_ms=5, buffer_records_max=10) as producer:
        frozen_broker()
        assert [r.seq for r in asyncio.run(fill(producer))] == list(range(30))


def test_a_rate_limit_holds_aggregates_back_and_counts_the_time(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, records_max=10, shard_records_per_s=100) as producer:
        for n in range(150):
            producer.put(order(n), key="lamp")
        producer.flush(30)
        assert 300 < producer.stats.limited_ms < 10_000, "fifty records more than the first second's worth"
        assert producer.stats.records_acknowledged == 150


def test_expired_records_fail_with_all_that_waits_behind_them(order_config: Make, frozen_broker: Any) -> None:
    config, stream = order_config(shards=1)
    with Producer(stream, config=config, linger_ms=1, in_flight_max=1, expiry_s=0.5) as producer:
        producer.put(order(0), key="lamp").result(30)
        frozen_broker()
        handed_over = producer.put(order(1), key="lamp")
        while not handed_over[0].handed_over:
            pass
        waits = producer.put(order(2), key="lamp")
        with pytest.raises(RecordExpiredError, match=r"longer than its expiry of 0\.5 s"):
            waits.result(30)
        frozen_broker.thaw()
        assert handed_over.result(30).seq == 1, "what was handed over once is sent until its outcome is known"
        assert producer.put(order(3), key="lamp").result(30).seq == 3
        assert producer.stats.records_expired >= 1
    assert [e["value"]["number"] for e in read_entries(config, stream, 1)] == [0, 1, 3]


def test_expired_records_go_to_the_dead_letters_and_those_behind_go_on(order_config: Make, frozen_broker: Any) -> None:
    config, stream = order_config(shards=1)
    options = {"linger_ms": 1, "in_flight_max": 1, "expiry_s": 0.5, "on_expiry": "dead_letter"}
    with Producer(stream, config=config, **options) as producer:
        producer.put(order(0), key="lamp").result(30)
        frozen_broker()
        handed_over = producer.put(order(1), key="lamp")
        while not handed_over[0].handed_over:
            pass
        expires = producer.put(order(2), key="lamp")
        while not producer.stats.records_expired:
            assert not expires.done(), "it fails once the dead letter is written"
        frozen_broker.thaw()
        with pytest.raises(RecordExpiredError, match="in the dead letters"):
            expires.result(30)
        assert producer.put(order(3), key="lamp").result(30).seq == 3
    assert [e["value"]["number"] for e in read_entries(config, stream, 1)] == [0, 1, 3]
    (letter,) = raw_messages(config.connection.bootstrap, f"{stream}.dead", 1)
    assert {name for name, _ in letter.headers()} == {"headrace", "headrace-dead"}
    assert b"lamp" in letter.value()


def test_receipts_of_expired_records_resolve_when_closed_before_their_dead_letter(
    order_config: Make, frozen_broker: Any
) -> None:
    config, stream = order_config(shards=1)
    producer = Producer(
        stream, config=config, linger_ms=1, in_flight_max=1, expiry_s=0.3, on_expiry="dead_letter"
    )
    producer.put(order(0), key="lamp").result(30)
    frozen_broker()
    receipts = [producer.put(order(n), key="lamp") for n in range(3)]
    with pytest.raises(Exception, match="not acknowledged within"):
        producer.close(timeout=1)
    assert all(receipt.done() for receipt in receipts)
