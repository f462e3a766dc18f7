"""Bad input and bad handlers, on a stream in memory (the suite that holds it to the broker: tests/broker/test_contract.py)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pipeline import Consumer
from pipeline.consume import pool, reading
from pipeline.errors import ConfigError, RegistryUnavailableError
from pipeline.model.record import Record
from pipeline.model.stamp import STAMP_HEADER, Stamp, encode_stamp
from pipeline.schema.encode import zigzag
from pipeline.schema.framing import frame
from pipeline.testing import MemoryStream

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "number", "type": "int"}, {"name": "tags", "type": {"type": "array", "items": "null"}, "default": []}],
}


def stream_of(numbers: Iterable[int], shards: int = 1, key: Callable[[int], str] = lambda _: "k", **options: Any) -> MemoryStream:
    stream = MemoryStream(ORDER, shards=shards, **options)
    stream.put_many([({"number": n}, key(n)) for n in numbers])
    return stream


def stamped(stream: MemoryStream, body: bytes, schema_id: int = 1, count: int = 1, shard: str = "s0") -> None:
    stamp = Stamp(shard, "enemy", 0, 0, count - 1, -1, count, 0)
    stream.put_raw(frame(schema_id, body), headers=[(STAMP_HEADER, encode_stamp(stamp))])


def take(consumer: Consumer, count: int) -> list[int]:
    found: list[int] = []
    deadline = time.monotonic() + 10
    while len(found) < count:
        assert time.monotonic() < deadline
        found += [record.value["number"] for record in consumer.read(0.1)]
    assert consumer.read(0.0) == []
    return found


ENTRY = b"\x02\x00\x02k\x00\x00\x02\x00\x02\x02"  # one entry up to its number: seq 0, key k, no id, salt, time, headers, value


@pytest.mark.parametrize(
    ("body", "schema_id", "shard"),
    [
        (b"", 1, "s0"),
        (ENTRY, 1, "s0"),
        (ENTRY + b"\x00\x00" + b"trailing", 1, "s0"),
        (zigzag(1 << 40) + b"\x00" * 100, 1, "s0"),
        (ENTRY + zigzag(1 << 40) + b"\x00\x00", 1, "s0"),
        (ENTRY + b"\x00\x00", 99, "s0"),
        (ENTRY + b"\x00\x00", 1, "unknown"),
        (b"\xff" * 200, 1, "s0"),
    ],
    ids=["empty", "truncated", "trailing", "huge count", "huge count of nulls", "schema id", "shard", "noise"],
)
def test_a_hostile_message_goes_to_the_dead_letters_and_the_shard_moves_on(body: bytes, schema_id: int, shard: str) -> None:
    stream = stream_of([0])
    stamped(stream, body, schema_id, shard=shard)
    stream.put({"number": 1}, key="k")
    with stream.consumer() as consumer:
        assert take(consumer, 2) == [0, 1]
        assert consumer.stats.bad == 1
    [letter] = stream.dead_letters
    assert (letter.offset, letter.index) == (1, -1)


def test_while_the_registry_is_down_a_message_waits_and_is_not_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "RETRY_S", 0.01)
    stream = stream_of([0])
    registry = stream._parts.registry
    answers = iter([RegistryUnavailableError("down")] * 3)
    right = registry.schema_text

    def schema_text(schema_id: int) -> str:
        for error in answers:
            raise error
        return right(schema_id)

    monkeypatch.setattr(registry, "schema_text", schema_text)
    with stream.consumer() as consumer:
        assert take(consumer, 1) == [0]
    assert stream.dead_letters == []


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_handler_that_exits_ends_the_run_and_its_record_comes_again(error: BaseException, workers: int) -> None:
    stream = stream_of(range(3))

    def handle(record: Record) -> None:
        if record.value["number"] == 1:
            raise error

    with stream.consumer() as consumer, pytest.raises(type(error)):
        consumer.run(handle, workers=workers)
    with stream.consumer() as consumer:
        assert take(consumer, 2) == [1, 2]


def test_retries_wait_longer_each_time_and_stop_at_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "BACKOFF_S_FIRST", 0.01)
    stream = stream_of(range(2))
    tries: list[float] = []

    def handle(record: Record) -> None:
        if record.value["number"] == 0:
            tries.append(time.monotonic())
            raise ValueError("no")

    with stream.consumer() as consumer:
        assert consumer.run(handle, retries=3, max_records=2) == 2
        assert (consumer.stats.retries, consumer.stats.dead_letters) == (3, 1)
    assert len(tries) == 4
    assert tries[3] - tries[2] > tries[1] - tries[0]
    assert [letter.attempts for letter in stream.dead_letters] == [4]


def test_a_slow_keys_successors_wait_and_the_bound_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = MemoryStream(ORDER, shards=1)
    for n in range(6):
        stream.put_many([({"number": n * 2}, "slow"), ({"number": n * 2 + 1}, f"k{n}")])
    go_on, seen = threading.Event(), []

    def handle(record: Record) -> None:
        if record.key == "slow":
            go_on.wait(10)
        seen.append(record.value["number"])

    with stream.consumer() as consumer:
        running = threading.Thread(target=lambda: consumer.run(handle, workers=2, in_flight_max=3, max_records=12))
        running.start()
        deadline = time.monotonic() + 10
        while len(seen) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert seen == [1, 3, 5], "three of the slow key's records are under way: the bound"
        assert consumer.stats.messages == 3
        go_on.set()
        running.join(10)
    assert [n for n in seen if n % 2 == 0] == list(range(0, 12, 2))


def test_cancelling_arun_stops_it_with_a_commit() -> None:
    stream = stream_of(range(3))

    async def go(consumer: Consumer) -> None:
        third = asyncio.Event()

        async def handle(record: Record) -> None:
            if record.value["number"] == 2:
                third.set()
                await asyncio.sleep(0)

        running = asyncio.ensure_future(consumer.arun(handle, workers=1))
        await third.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    with stream.consumer() as consumer:
        asyncio.run(go(consumer))
    stream.put({"number": 3}, key="k")
    with stream.consumer() as consumer:
        assert take(consumer, 1)[-1] == 3


def test_wrong_options_are_refused_with_what_is_expected() -> None:
    stream = stream_of([0])
    with pytest.raises(ConfigError, match="on_trimmed has to be"):
        stream.consumer(on_trimmed="ignore")
    with stream.consumer() as consumer:
        with pytest.raises(ConfigError, match="on_failure has to be"):
            consumer.run(print, on_failure="ignore")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="at least one worker"):
            consumer.run(print, workers=0)
    with pytest.raises(ConfigError, match="needs a broker"):
        MemoryStream(ORDER, format="json")


def test_records_tell_no_content_in_their_repr_and_the_time_they_were_put() -> None:
    stream = MemoryStream(ORDER, shards=1)
    stream.put({"number": 77}, key="secret", at_ms=1_700_000_000_123)
    with stream.consumer() as consumer:
        [record] = consumer.read(1.0)
    assert "secret" not in repr(record)
    assert "77" not in repr(record)
    assert record.produced_at.isoformat(timespec="milliseconds") == "2023-11-14T22:13:20.123+00:00"


def test_a_record_under_way_is_finished_and_committed_before_its_shard_goes_to_another_member() -> None:
    stream = stream_of(range(40), shards=2, key=lambda n: f"k{n}")
    started, go_on, handled = threading.Event(), threading.Event(), []

    def slowly(record: Record) -> None:
        if record.partition == 1 and not started.is_set():
            started.set()
            go_on.wait(10)
        time.sleep(0.02)  # the work: the second member comes while it goes on
        handled.append((record.partition, record.index))

    with stream.consumer() as first:
        running = threading.Thread(target=lambda: first.run(slowly))
        running.start()
        assert started.wait(10)
        with stream.consumer() as second:  # takes partition 1 over
            got: list[tuple[int, int]] = []
            joining = threading.Thread(target=lambda: got.extend((r.partition, r.index) for r in _some(second)))
            joining.start()
            go_on.set()
            joining.join(15)
            first.stop()
            running.join(10)
    assert handled.count((1, 0)) == 1
    assert got
    assert got[0][0] == 1, "the rest of its aggregate is the second member's"
    assert set(got).isdisjoint(handled)


def _some(consumer: Consumer) -> list[Record]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = consumer.read(0.1)
        if found:
            return found
    return []


def test_what_a_late_producer_writes_behind_a_seal_is_skipped_and_counted() -> None:
    stream = stream_of([0])
    stream.split("s0")
    parent = stream._parts.control.map.shards["s0"]
    stream._append(parent, [(stream._next_seq, stream._encode("k", None, 0, 0, [], {"number": 1}))], 0)
    stream._next_seq += 1
    stream.put({"number": 2}, key="k")
    with stream.consumer() as consumer:
        assert take(consumer, 2) == [0, 2]
        deadline = time.monotonic() + 10
        while consumer.stats.voids < 1:
            assert time.monotonic() < deadline
            assert consumer.read(0.05) == []


def test_a_message_with_other_records_than_its_stamp_promises_is_refused() -> None:
    stream = stream_of([0])
    stamped(stream, ENTRY + b"\x00\x00", count=2)
    stream.put({"number": 1}, key="k")
    with stream.consumer() as consumer:
        assert take(consumer, 2) == [0, 1]
    [letter] = stream.dead_letters
    assert "promises 2 records, the message has 1" in letter.text


def test_a_plain_tombstone_with_the_stamp_of_several_records_is_refused() -> None:
    stream = stream_of([0])
    stream.put_raw(None, headers=[(STAMP_HEADER, encode_stamp(Stamp("s0", "enemy", 0, 0, 1, -1, 2, 0)))])
    stream.put({"number": 1}, key="k")
    with stream.consumer() as consumer:
        assert take(consumer, 2) == [0, 1]
    [letter] = stream.dead_letters
    assert "promises 2 records, the message has 1" in letter.text


def test_a_repeat_is_dropped_by_the_next_member_also_after_a_split() -> None:
    stream = stream_of([0])
    with stream.consumer() as consumer:
        take(consumer, 1)
    stream.redeliver()
    stream.split("s0")
    stream.put({"number": 1}, key="k")
    with stream.consumer() as consumer:
        assert take(consumer, 1) == [1]
        assert consumer.stats.repeats_dropped == 1
