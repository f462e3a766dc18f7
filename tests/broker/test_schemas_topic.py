"""The registry's topic: writers that decide by what they have read, one after the other (docs/adr/0002)."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline.errors import RecordTooLargeError
from pipeline.kafka.schemas_topic import SchemasTopic
from pipeline.registry.records import NOOP_KEY

DEADLINE_S = 60.0


@pytest.fixture
def topics(stack: Any) -> Iterator[Callable[[Callable[[Any], None]], SchemasTopic]]:
    opened: list[SchemasTopic] = []
    topic = f"_schemas-{uuid.uuid4().hex[:8]}"

    def open_one(apply: Callable[[Any], None]) -> SchemasTopic:
        opened.append(SchemasTopic({"bootstrap.servers": stack.bootstrap}, topic, noop_key=NOOP_KEY))
        opened[-1].open(apply)
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def keys(records: list[Any]) -> list[bytes]:
    return [one.key for one in records if one.key != NOOP_KEY]


def test_a_decision_is_made_again_when_another_wrote_after_it(topics: Any) -> None:
    seen_by_a: list[Any] = []
    seen_by_b: list[Any] = []
    a, b = topics(seen_by_a.extend), topics(seen_by_b.extend)
    decisions: list[list[bytes]] = []

    def decide() -> list[tuple[bytes, bytes | None]]:
        decisions.append(keys(seen_by_a))
        if len(decisions) == 1:
            b.write(lambda: [(b"b", b"1")])  # between the decision of a and its commit
        return [(b"a%d" % len(decisions), b"1")]

    a.write(decide)
    assert decisions == [[], [b"b"]]
    assert keys(seen_by_a) == [b"b", b"a2"]
    b.refresh()
    assert keys(seen_by_b) == [b"b", b"a2"]
    assert (a.turns_lost, b.turns_lost) == (1, 0)


def test_a_decision_waits_until_everything_before_it_was_applied(topics: Any) -> None:
    applied: list[Any] = []
    release = threading.Event()
    release.set()

    def slowly(records: Any) -> None:
        assert release.wait(DEADLINE_S)
        applied.extend(records)

    slow, quick = topics(slowly), topics(lambda _: None)
    release.clear()
    quick.write(lambda: [(b"b", b"1")])
    timer = threading.Timer(1.5, release.set)
    timer.start()
    seen: list[list[bytes]] = []
    slow.write(lambda: seen.append(keys(applied)) or [])
    timer.join()
    assert seen == [[b"b"]]


def test_several_records_are_written_together_or_not_at_all(topics: Any) -> None:
    applied: list[Any] = []
    one = topics(applied.extend)
    with pytest.raises(RecordTooLargeError):
        one.write(lambda: [(b"small", b"1"), (b"large", b"x" * 3_000_000)])
    one.write(lambda: [(b"x", b"1"), (b"y", None)])
    assert keys(applied) == [b"x", b"y"]
