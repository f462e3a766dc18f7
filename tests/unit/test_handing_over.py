"""A shard that goes to another member while a commit is waited for: from then on its records are that one's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from pipeline import Consumer
from pipeline.consume.pool import Pool
from pipeline.consume.reading import Reading
from pipeline.consume.tracks import Item
from pipeline.errors import BrokerUnavailableError
from pipeline.kafka.group_reader import Committed, Then
from pipeline.metrics import COMMIT_FAILURES
from pipeline.model.record import Record
from pipeline.model.shards import Place
from pipeline.testing import MemoryStream
from pipeline.testing.group import MemoryMember

ORDER: dict[str, Any] = {"type": "record", "name": "Order", "fields": [{"name": "number", "type": "int"}]}
RECORDS = 40
Step = Callable[[], list[Record]]


def numbers(records: list[Record]) -> list[int]:
    return [record.value["number"] for record in records]


def by_record(consumer: Consumer) -> Step:
    found = iter(consumer)
    return lambda: [next(found)]


def by_chunk(consumer: Consumer) -> Step:
    found = consumer.chunks(2)
    return lambda: next(found)


def by_coroutine(consumer: Consumer) -> Step:
    found, loop = aiter(consumer), asyncio.new_event_loop()
    return lambda: [loop.run_until_complete(anext(found))]


@pytest.fixture
def stream() -> MemoryStream:
    """One aggregate in each of two shards."""
    stream = MemoryStream(ORDER, shards=2)
    stream.put_many([({"number": n}, f"k{n}") for n in range(RECORDS)])
    return stream


def rest(consumer: Consumer) -> list[int]:
    return [number for _ in range(4) for number in numbers(consumer.read(0.0))]


@pytest.mark.parametrize("way", [by_record, by_chunk, by_coroutine])
def test_what_is_left_of_an_aggregate_is_not_handed_out(stream: MemoryStream, way: Callable[[Consumer], Step]) -> None:
    with ExitStack() as members:
        first = members.enter_context(stream.consumer(commit_interval_s=0.0))
        step = way(first)
        handled = step()
        while handled[-1].partition == 0:  # of the shard that stays
            handled += step()
        second = members.enter_context(stream.consumer())
        stream.put({"number": RECORDS}, handled[0].key)
        handled += step()  # commits, and gives the other shard up by that
        taken_over = rest(second)
        assert taken_over
        assert sorted(numbers(handled) + taken_over) == list(range(RECORDS + 1))


def test_a_message_that_was_fetched_is_not_handed_out(stream: MemoryStream, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as members:
        first = members.enter_context(stream.consumer(commit_interval_s=0.0))
        others: list[Consumer] = []
        fetch = Reading.next

        def then_another_joins(self: Reading, timeout_s: float) -> Any:
            item = fetch(self, timeout_s)
            if item is not None and item.track.place[1] == 1 and not others:
                others.append(members.enter_context(stream.consumer()))
            return item

        monkeypatch.setattr(Reading, "next", then_another_joins)
        handled = rest(first)
        (second,) = others
        assert sorted(handled + rest(second)) == list(range(RECORDS))


def test_what_handlers_finished_is_committed_when_a_seal_of_another_shard_is_passed_first(
    stream: MemoryStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.split("s0")
    handled: list[int] = []
    with ExitStack() as members:
        first = members.enter_context(stream.consumer(commit_interval_s=60.0))
        others: list[Consumer] = []
        look = Pool.progress

        def of_everything_at_once(self: Pool) -> list[Item]:
            in_hand = sum(len(track.items) for track in first._reading.tracks.values())
            if not others and (len(handled) < RECORDS or in_hand < 3):  # two aggregates, and the end of shard 0
                return []
            if not others:
                others.append(members.enter_context(stream.consumer()))
                first.stop()
            return look(self)

        monkeypatch.setattr(Pool, "progress", of_everything_at_once)
        first.run(lambda record: handled.append(record.value["number"]))
        (second,) = others
        assert sorted(handled + rest(second)) == list(range(RECORDS))


def test_a_commit_that_fails_after_its_shard_went_to_another_member_is_told(
    stream: MemoryStream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commit = MemoryMember.commit

    def fails_when_given_up(self: MemoryMember, positions: dict[Place, Committed], then: Then) -> None:
        if self._in_callback:
            then(BrokerUnavailableError("no coordinator"))
        else:
            commit(self, positions, then)

    with ExitStack() as members:
        first = members.enter_context(stream.consumer(commit_interval_s=60.0))
        handled = rest(first)
        second = members.enter_context(stream.consumer())
        monkeypatch.setattr(MemoryMember, "commit", fails_when_given_up)
        failures = COMMIT_FAILURES.labels("memory", first.group)._value
        before = failures.get()
        assert first.read(0.0) == []
        monkeypatch.undo()
        assert failures.get() == before + 1
        assert "the commit before memory[1] went to others failed" in caplog.text
        assert set(rest(second)) < set(handled)
