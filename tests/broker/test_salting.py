"""A hot key of a salted stream on a real broker."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from pipeline import Consumer, Producer
from pipeline.model.keys import hash_key, salted_key
from tests.broker.test_producer import order

Make = Callable[..., Any]


def test_a_hot_key_is_spread_over_shards_and_each_salt_keeps_its_order(order_config: Make) -> None:
    config, stream = order_config(shards=4, ordering="salted")
    count = 0
    with Producer(stream, config=config, linger_ms=5) as producer:
        deadline = time.monotonic() + 30
        while not producer._state.settled.shard_map.salts:
            assert time.monotonic() < deadline
            producer.put_many([order(n, "hot") for n in range(count, count + 500)])
            producer.flush(30)
            count += 500
        receipts = [producer.put(order(n, "hot"), key="hot") for n in range(count, count + 500)]
        count += 500
        producer.flush(30)
        shards = {receipt.result(0).shard for receipt in receipts}
        shard_map = producer._state.settled.shard_map
        with Producer(stream, config=config) as other:
            assert other._state.settled.shard_map.salts == shard_map.salts, "all producers agree"
    assert len(shards) > 1
    numbers: dict[int, list[int]] = defaultdict(list)
    with Consumer(stream, group="g", config=config) as consumer:
        for _, record in zip(range(count), consumer, strict=False):
            assert record.key == "hot"
            assert shard_map.route(hash_key(salted_key("hot", record.salt))).id == record.shard
            numbers[record.salt].append(record.value["number"])
    assert all(found == sorted(found) for found in numbers.values())
    assert sorted(n for found in numbers.values() for n in found) == list(range(count))
