"""Which records may be handled now, and what a commit may say meanwhile."""

from __future__ import annotations

from typing import Any

from pipeline.consume.checkpoint import Position
from pipeline.consume.keyed import KeyedTasks
from pipeline.consume.tracks import Item, Track
from pipeline.consume.unpack import Kind, Unpacked
from pipeline.kafka.group_reader import Fetched
from pipeline.model.record import Origin, Record
from pipeline.model.repeats import Marks, Verdict
from pipeline.model.shards import Shard
from pipeline.model.stamp import Stamp

PLACE = ("t", 0)
SHARD = Shard("s0", 0, 1 << 64, "t", 0)


def track() -> Track:
    return Track(PLACE, Position(0), Marks(), "turn")


def message(of: Track, offset: int, keys: str, first_seq: int = 0) -> tuple[Item, list[Record]]:
    count = len(keys)
    stamp = Stamp("s0", "p", 0, first_seq, first_seq + count - 1, -1, count, 1_000)
    fetched = Fetched(PLACE, offset, b"s0", b"", [], 0)
    item = of.take(Unpacked(Kind.RECORDS, fetched, SHARD, stamp, kept=range(count)))
    origin = Origin("t", 0, offset, "s0", 0, "p", 1, first_seq, range(count), [None] * count, [0] * count, [0] * count)
    return item, [Record(origin, index, key, None) for index, key in enumerate(keys)]


def names(task: Any) -> list[tuple[int, int]]:
    return [(record.offset, record.index) for record in task.records]


def test_a_keys_records_run_one_after_another_and_other_keys_beside_them() -> None:
    tasks, one = KeyedTasks(), track()
    tasks.add(*message(one, 0, "aba"))
    tasks.add(*message(one, 1, "ab"))
    first, second = tasks.take(0.0), tasks.take(0.0)
    assert first is not None
    assert second is not None
    assert (names(first), names(second)) == ([(0, 0), (0, 2)], [(0, 1)])
    assert tasks.take(0.0) is None, "the next message's records of both keys wait"
    tasks.finished(second)
    third = tasks.take(0.0)
    assert third is not None
    assert names(third) == [(1, 1)]


def test_a_failed_record_keeps_its_key_until_it_is_due() -> None:
    tasks, one = KeyedTasks(), track()
    tasks.add(*message(one, 0, "aa"))
    task = tasks.take(0.0)
    assert task is not None
    tasks.again(task, 5.0)
    assert tasks.take(4.9) is None
    assert tasks.due() == 5.0
    assert tasks.take(5.0) is task


def test_one_worker_takes_everything_in_the_order_of_the_log() -> None:
    tasks, one = KeyedTasks(by_key=False), track()
    tasks.add(*message(one, 0, "ab"))
    tasks.add(*message(one, 1, "cd"))
    first = tasks.take(0.0)
    assert first is not None
    assert names(first) == [(0, 0), (0, 1)]
    assert tasks.take(0.0) is None


def test_what_waits_of_a_partition_that_goes_away_is_dropped_and_what_runs_is_not() -> None:
    tasks, one = KeyedTasks(), track()
    tasks.add(*message(one, 0, "ab"))
    running = tasks.take(0.0)
    assert running is not None
    tasks.drop({PLACE}, {running})
    assert tasks.take(0.0) is None
    assert tasks.waiting_records == 1
    tasks.finished(running)
    assert tasks.waiting_records == 0


def test_a_commit_never_passes_an_unfinished_record() -> None:
    one = track()
    first, _ = message(one, 0, "abc")
    second, _ = message(one, 1, "abc", first_seq=3)
    second.done = 3
    assert one.settle() == []
    assert one.position == Position(0)
    first.done = 2
    one.settle()
    assert one.position == Position(0, 2)
    first.done = 3
    assert one.settle() == [first, second]
    assert one.position == Position(2)


def test_marks_of_a_commit_hold_what_is_handled_and_judging_what_is_taken() -> None:
    one = track()
    item, _ = message(one, 0, "abc")
    assert one.judged.judge("p", 0, 2, 0, 1 << 64)[0] is Verdict.REPEAT, "a repeat of a message in hand is one"
    assert one.marks.judge("p", 0, 2, 0, 1 << 64)[0] is Verdict.ACCEPT
    item.done = 3
    one.settle()
    assert one.marks.judge("p", 0, 2, 0, 1 << 64)[0] is Verdict.REPEAT


def test_what_is_put_back_is_taken_again() -> None:
    one = track()
    item, _ = message(one, 0, "abc")
    item.done = 1
    one.settle()
    assert one.put_back() == 0
    assert one.position == Position(0, 1)
    assert one.judged.judge("p", 0, 2, 0, 1 << 64)[0] is Verdict.ACCEPT
