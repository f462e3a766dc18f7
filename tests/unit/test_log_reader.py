"""The reader of one partition, and a client of it that librdkafka keeps away from every broker."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline.config import Connection
from pipeline.errors import BrokerUnavailableError
from pipeline.kafka import log_reader
from pipeline.kafka.log_reader import LogReader


class Client:
    """One that fails with an error, or answers."""

    made: list[Client]

    def __init__(self, settings: dict[str, Any]) -> None:
        self.closed = False
        self.error = self.errors.pop(0) if self.errors else None
        self.made.append(self)

    errors: list[int | None]

    def get_watermark_offsets(self, *_: Any, **__: Any) -> tuple[int, int]:
        if self.error is not None:
            raise KafkaException(KafkaError(self.error))
        return 0, 7

    def assign(self, *_: Any) -> None: ...

    def poll(self, timeout: float) -> None: ...

    def consume(self, *_: Any, **__: Any) -> list[Any]:
        return []

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> type[Client]:
    monkeypatch.setattr(log_reader, "Consumer", Client)
    Client.made, Client.errors = [], []
    return Client


def reader() -> LogReader:
    return LogReader(Connection(bootstrap="127.0.0.1:1", registry="http://127.0.0.1:1"), "topic", 0)


def test_a_client_that_lost_every_broker_is_replaced(clients: type[Client]) -> None:
    clients.errors = [KafkaError._ALL_BROKERS_DOWN]
    one = reader()
    with pytest.raises(BrokerUnavailableError):
        one.bounds(1.0)
    assert one.bounds(1.0) == (0, 7)
    assert [client.closed for client in clients.made] == [True, False]


def test_a_client_whose_broker_is_slow_is_kept(clients: type[Client]) -> None:
    clients.errors = [KafkaError._TIMED_OUT]
    one = reader()
    with pytest.raises(BrokerUnavailableError):
        one.bounds(1.0)
    assert [client.closed for client in clients.made] == [False]


def test_a_client_that_brings_nothing_of_what_is_there_is_replaced(clients: type[Client]) -> None:
    one = reader()
    with pytest.raises(BrokerUnavailableError, match=r"at 3\)"):
        list(one.read(3, 5, 0.0))
    assert [client.closed for client in clients.made] == [True, False]
