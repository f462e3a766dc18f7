"""A member's commits, with a client that answers as it is told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from pipeline.config import Connection
from pipeline.errors import BrokerUnavailableError, HeadraceError
from pipeline.kafka import group_reader
from pipeline.kafka.group_reader import Committed, GroupReader

PLACE = ("topic", 0)
POSITIONS = {PLACE: Committed(7, "")}


class Client:
    """Answers the commits before a poll in it, with ``answer``; the first poll of all gives the partitions up."""

    answer: KafkaError | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        self._answer = settings["on_commit"]
        self._asked: list[list[TopicPartition]] = []
        self._revoke: list[Callable[..., None]] = []

    def subscribe(self, _: list[str], *, on_revoke: Callable[..., None], **__: Any) -> None:
        self._revoke = [on_revoke]

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        self._asked.append(offsets)

    def poll(self, _: float) -> None:
        asked, self._asked = self._asked, []
        for offsets in asked:
            self._answer(self.answer, offsets)
        if self._revoke:
            self._revoke.pop()(self, [TopicPartition(*PLACE)])

    def incremental_unassign(self, _: list[TopicPartition]) -> None: ...


class Told:
    """What a member hears of its commit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: KafkaError | None) -> None:
        monkeypatch.setattr(Client, "answer", answer)
        monkeypatch.setattr(group_reader, "Consumer", Client)
        self.heard: list[HeadraceError | None] = []
        connection = Connection(bootstrap="127.0.0.1:1", registry="http://127.0.0.1:1")
        self.reader = GroupReader(connection, "g", "consumer", lambda _: None, lambda *_: self.commit())

    def commit(self) -> None:
        self.reader.commit(POSITIONS, self.heard.append)


@pytest.mark.parametrize("answer", [None, KafkaError(KafkaError.ILLEGAL_GENERATION)], ids=["good", "bad"])
def test_a_commit_before_partitions_are_given_up_is_told_of_once_it_is_answered(
    monkeypatch: pytest.MonkeyPatch, answer: KafkaError | None
) -> None:
    told = Told(monkeypatch, answer)
    told.reader.subscribe(["topic"])
    told.reader.poll(0)
    assert told.heard == []  # not answered yet
    told.reader.poll(0)
    assert [error is None for error in told.heard] == [answer is None]


def test_a_commit_that_is_waited_for_raises_and_tells_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, KafkaError(KafkaError.ILLEGAL_GENERATION))
    with pytest.raises(BrokerUnavailableError):
        told.commit()
    assert told.heard == []
