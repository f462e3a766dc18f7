"""The schemas topic's creation where the brokers' metadata lags behind the controller's answer."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import BrokerUnavailableError
from pipeline.kafka import schemas_admin


class Lagging:
    """An AdminClient whose brokers know a created topic's partitions only after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def list_topics(self, topic: str | None = None, timeout: float = 0) -> Any:
        if topic is None:
            return SimpleNamespace(topics={}, brokers={1: None})
        self.looks -= 1
        partition = SimpleNamespace(replicas=[1])
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions={} if self.looks >= 0 else {0: partition})})

    def create_topics(self, new: list[Any], **_: Any) -> dict[str, Any]:
        return {one.topic: done(None) for one in new}

    def describe_configs(self, resources: list[Any], **_: Any) -> dict[Any, Any]:
        config = {"cleanup.policy": SimpleNamespace(value="compact"), "max.message.bytes": SimpleNamespace(value="1000")}
        return {one: done(config) for one in resources}


def done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def ensure(monkeypatch: pytest.MonkeyPatch, looks: int, timeout_s: float) -> None:
    admin = Lagging(looks)
    monkeypatch.setattr(schemas_admin, "_admin", lambda settings: admin)
    schemas_admin.ensure_topic({}, "_schemas", timeout_s)


def test_a_new_topic_is_waited_for_until_the_brokers_know_its_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    ensure(monkeypatch, looks=3, timeout_s=20)


def test_a_topic_whose_partitions_never_become_known_is_an_error_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokerUnavailableError, match="no partitions yet"):
        ensure(monkeypatch, looks=10**9, timeout_s=0.2)
