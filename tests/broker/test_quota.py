"""A broker with quotas: the time for which it tells a client to wait is seen, and nothing is lost by it."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import REGISTRY

from pipeline import Producer
from tests.broker.test_producer import order, read_entries

Make = Callable[..., Any]
ALTER_CLIENT_QUOTAS = 49


def text(value: str | None) -> bytes:
    return struct.pack(">h", -1) if value is None else struct.pack(">h", len(value)) + value.encode()


def alter_quota(bootstrap: str, key: str, value: float, *, remove: bool) -> None:
    """Of every client that has none of its own. confluent-kafka has no call for it, so this speaks Kafka's protocol itself."""
    entity = struct.pack(">i", 1) + text("client-id") + text(None)
    ops = struct.pack(">i", 1) + text(key) + struct.pack(">d?", value, remove)
    body = struct.pack(">i", 1) + entity + ops + b"\x00"
    request = struct.pack(">hhi", ALTER_CLIENT_QUOTAS, 0, 1) + text("test") + body
    host, _, port = bootstrap.partition(",")[0].rpartition(":")
    with socket.create_connection((host, int(port)), 10) as broker, broker.makefile("rb") as answers:
        broker.sendall(struct.pack(">i", len(request)) + request)
        answer = answers.read(*struct.unpack(">i", answers.read(4)))
    _, _, entries, error = struct.unpack_from(">iiih", answer)
    assert (entries, error) == (1, 0), answer


@contextmanager
def quota(bootstrap: str, key: str, value: float) -> Iterator[None]:
    alter_quota(bootstrap, key, value, remove=False)
    try:
        yield
    finally:
        alter_quota(bootstrap, key, value, remove=True)


def throttled_s() -> float:
    return REGISTRY.get_sample_value("headrace_client_throttled_seconds_total", {"client": "producer"}) or 0.0


def test_the_time_for_which_a_quota_holds_the_producer_back_is_counted_and_everything_arrives(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    before, count, deadline = throttled_s(), 0, time.monotonic() + 60
    limited = quota(config.connection.bootstrap, "producer_byte_rate", 30_000)
    with Producer(stream, config=config, linger_ms=5) as producer, limited:
        while throttled_s() == before:
            assert time.monotonic() < deadline, "no throttle time was seen"
            producer.put(order(count) | {"item": random.randbytes(20_000).hex()}, key="lamp").result(timeout=30)
            count += 1
    assert [entry["value"]["number"] for entry in read_entries(config, stream, 1)] == list(range(count))
