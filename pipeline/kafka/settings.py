"""librdkafka settings, and why each is as it is. The caller's own settings come first; what the promises rest on is not
theirs to change."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pipeline.config import Connection
from pipeline.metrics import THROTTLED_SECONDS

log = logging.getLogger("headrace.kafka")
_KNOWN = ("enable.gapless.guarantee is experimental", "Purged in flight", "Purged in queue")


def _worth_telling(record: logging.LogRecord) -> bool:
    """librdkafka warns of a setting that we chose, and calls our own purge of a client that is thrown away fatal."""
    return not any(known in record.getMessage() for known in _KNOWN)


log.addFilter(_worth_telling)

METADATA_REFRESH_MS = 2_000  # new partitions are found within seconds (DESIGN.md §3)
# How long a broker that hangs, without closing its connections, is waited for. librdkafka asks the broker that it used last
# for the cluster's state: while that one hangs, it hears of no new leader. Its own default is a minute. What carries a lot of
# data gets the 30 s of Kafka's Java clients: on a slow line, a fetch of many shards may take that long.
SMALL_REQUEST_TIMEOUT_MS = 10_000
DATA_REQUEST_TIMEOUT_MS = 30_000


def _common(connection: Connection, request_timeout_ms: int) -> dict[str, Any]:
    settings = {"socket.timeout.ms": request_timeout_ms} | connection.kafka_settings()
    return settings | {
        "client.id": "headrace",
        "topic.metadata.refresh.interval.ms": METADATA_REFRESH_MS,
        "allow.auto.create.topics": False,
        "logger": log,
    }


def _throttled(client: str) -> Callable[[Any], None]:
    counter = THROTTLED_SECONDS.labels(client)

    def count(event: Any) -> None:
        counter.inc(event.throttle_time)

    return count


def producer_settings(connection: Connection, compression: str, message_bytes_max: int) -> dict[str, Any]:
    """Producer rule 5: an idempotent client without time-outs of its own, so that no later request ever passes an earlier
    one; no ``transactional.id``, or an open transaction would hide the log from readers."""
    settings = _common(connection, DATA_REQUEST_TIMEOUT_MS)
    settings.pop("transactional.id", None)
    return settings | {
        "enable.idempotence": True,
        "enable.gapless.guarantee": True,
        "message.timeout.ms": 0,
        "acks": "all",
        "max.in.flight.requests.per.connection": 5,
        "compression.type": compression,
        # Aggregates are packed already: waiting longer in librdkafka gains nothing. Zero would send each alone.
        "linger.ms": 1,
        "message.max.bytes": message_bytes_max + 64 * 1024,
        "batch.size": message_bytes_max,
        # The bound on memory is the producer's; librdkafka must not refuse what that one allowed.
        "queue.buffering.max.kbytes": 2_097_151,
        "queue.buffering.max.messages": 10_000_000,
        "delivery.report.only.error": False,
        "throttle_cb": _throttled("producer"),
    }


def writer_settings(connection: Connection) -> dict[str, Any]:
    """For single messages, acknowledged by all in-sync replicas; given up after a time, since the caller looks into the log
    to see whether its message stands there."""
    settings = _common(connection, SMALL_REQUEST_TIMEOUT_MS)
    settings.pop("transactional.id", None)
    return settings | {
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 0,
        "message.timeout.ms": 30_000,
        "message.max.bytes": 16 << 20,
    }


def reader_settings(connection: Connection, request_timeout_ms: int = SMALL_REQUEST_TIMEOUT_MS) -> dict[str, Any]:
    """A consumer without a group: it is assigned by hand and commits nothing. read_uncommitted, or an open foreign
    transaction would hide the log behind it (reader rules)."""
    return _common(connection, request_timeout_ms) | {
        "group.id": "headrace-reader",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_uncommitted",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 100,
        "check.crcs": True,
    }


def group_settings(connection: Connection, group: str, protocol: str) -> dict[str, Any]:
    """A consumer in a group. ``protocol`` is Kafka's ``classic`` (cooperative assignment) or ``consumer`` (the new one)."""
    settings = reader_settings(connection, DATA_REQUEST_TIMEOUT_MS)
    settings |= {"group.id": group, "group.protocol": protocol, "enable.partition.eof": False}
    settings["throttle_cb"] = _throttled("consumer")
    if protocol == "classic":
        settings |= {"partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 10_000}
    return settings
