"""What the compiled part of ``put`` takes, and that it leaves everything rare to Python, untouched."""

from __future__ import annotations

import gc
import inspect
import os
import subprocess
import sys
import threading
import weakref
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest

from pipeline.compiled import _core as core
from pipeline.produce.aggregate import Aggregate
from pipeline.produce.pack import FULL, Lane
from pipeline.produce.receipt import PendingReceipt
from pipeline.schema.encode import EntryEncoder
from pipeline.schema.program import compiled_encoder
from pipeline.schema.value_schema import parse_schema

AT = {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]}
SCHEMA = parse_schema({"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}, AT]})
BODY_BYTES = len(EntryEncoder(SCHEMA).encode("k", None, 0, 1_700_000_000_000, None, {"n": 1, "at": None}))
OVERHEAD_BYTES = 160


class Setting:
    """A producer's parts around a compiled put; ``slow`` notes what was left to it."""

    def __init__(self, bytes_max: int = 1 << 20, records_max: int = 1000, **parts: Any) -> None:
        self.left: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.room = core.Room()
        self.room.next_seq, self.room.full_seq, self.room.free_bytes = 7, 1 << 40, 1 << 40
        self.lane = Lane("s0")
        self.lane.open = self.aggregate = Aggregate("s0", 0)
        self.aggregate.entries.first_seq = 7
        self.lanes = {"k": self.lane}
        self.lock = threading.Lock()
        encoder = compiled_encoder(SCHEMA)
        assert encoder is not None
        self.put = core.Putter(
            parts.get("slow", self.slow),
            encoder,
            self.room,
            self.lanes,
            Lane,
            Aggregate,
            self.lock,
            PendingReceipt,
            parts.get("context"),
            parts.get("spanned"),
            bytes_max,
            records_max,
            OVERHEAD_BYTES,
        )

    def slow(self, *values: Any, **named: Any) -> str:
        self.left.append((values, named))
        return "slow"

    @property
    def taken(self) -> tuple[int, int]:
        return self.aggregate.count, self.room.next_seq


ROW = {"n": 1, "at": None}


def test_a_record_is_taken_when_its_aggregate_is_open_and_there_is_room() -> None:
    setting = Setting()
    first, second = setting.put(ROW, "k"), setting.put(ROW, "k", id="mine", timeout=0, headers=None, position=None, hash_key=None)
    assert type(first) is PendingReceipt
    assert (first, second) == ((setting.aggregate, 0), (setting.aggregate, 1))
    assert setting.taken == (2, 9)
    assert setting.aggregate.seqs == [7, 8]
    assert setting.room.free_bytes == (1 << 40) - setting.aggregate.size_bytes - 2 * OVERHEAD_BYTES
    assert setting.aggregate.size_bytes == sum(map(len, setting.aggregate.bodies))
    assert setting.left == []


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((ROW, "k"), {"headers": [("a", b"1")]}),
        ((ROW, "k"), {"position": 3}),
        ((ROW, "k"), {"hash_key": 3}),
        ((ROW, "k"), {"other": 3}),
        ((ROW,), {"key": "k"}),
        ((ROW, "k", None), {}),
        ((ROW, "another"), {}),
        ((ROW, ["k"]), {}),
        ((ROW, type("Name", (str,), {})("k")), {}),
        ((ROW, "k"), {"id": 3}),
        (({"n": "one", "at": None}, "k"), {}),
        (({"n": 1}, "k"), {}),
        (({"n": 1, "at": None, "b": 2}, "k"), {}),
        (({"n": 2**31, "at": None}, "k"), {}),
        (({"n": True, "at": None}, "k"), {}),
        (({1: 1, "at": None}, "k"), {}),
        (({"n": 1, "at": datetime(2026, 1, 1)}, "k"), {}),
        ((b"raw", "k"), {}),
    ],
    ids=repr,
)
def test_what_is_rare_is_left_to_python_with_the_same_arguments(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    setting = Setting()
    assert setting.put(*values, **named) == "slow"
    assert setting.left == [(values, named)]
    assert setting.taken == (0, 7)


def test_a_record_is_left_to_python_when_its_shard_s_aggregate_is_sealed() -> None:
    setting = Setting()
    setting.lane.open = FULL
    assert setting.put(ROW, "k") == "slow"


def test_the_record_that_fills_an_aggregate_is_left_to_python() -> None:
    by_count, by_bytes = Setting(records_max=2), Setting(bytes_max=2 * BODY_BYTES)
    for setting in (by_count, by_bytes):
        assert [type(setting.put(ROW, "k")) for _ in range(2)] == [PendingReceipt, str]
        assert setting.taken == (1, 8)


def test_a_record_is_left_to_python_when_the_buffer_is_full() -> None:
    of_bytes, of_records = Setting(), Setting()
    of_bytes.room.free_bytes = BODY_BYTES + OVERHEAD_BYTES
    of_records.room.full_seq = 8
    for setting in (of_bytes, of_records):
        assert [type(setting.put(ROW, "k")) for _ in range(2)] == [PendingReceipt, str]
        assert setting.taken == (1, 8)
    assert of_bytes.room.free_bytes == 0


def test_a_record_is_left_to_python_when_its_sequence_is_too_far_from_the_first() -> None:
    setting = Setting()
    setting.room.next_seq = 7 + 2**31
    assert setting.put(ROW, "k") == "slow"


def test_nothing_is_taken_while_another_thread_holds_the_lock() -> None:
    setting, receipts = Setting(), []
    putting = threading.Thread(target=lambda: receipts.append(setting.put(ROW, "k")))
    with setting.lock:
        putting.start()
        putting.join(0.3)
        assert (putting.is_alive(), setting.taken) == (True, (0, 7))
    putting.join(10)
    assert receipts == [(setting.aggregate, 0)]
    assert not setting.lock.locked()


@pytest.mark.parametrize("known", [True, False], ids=["where the context is", "asked for each record"])
def test_records_inside_a_sampled_span_are_left_to_python(known: bool) -> None:
    context: ContextVar[dict[str, int]] = ContextVar("context")
    sampled = [False]
    setting = Setting(context=context if known else None, spanned=lambda: sampled[0])
    kinds = [type(setting.put(ROW, "k"))]
    context.set({"span": 1})
    kinds.append(type(setting.put(ROW, "k")))
    sampled[0] = True
    kinds.append(type(setting.put(ROW, "k")))
    context.set({})
    kinds.append(type(setting.put(ROW, "k")))
    assert kinds == [PendingReceipt, PendingReceipt, str, PendingReceipt if known else str]


class Zone(tzinfo):
    """A time zone that runs code of its user while a value is encoded."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def utcoffset(self, _: datetime | None) -> timedelta:
        self.act()
        return timedelta(0)

    def dst(self, _: datetime | None) -> timedelta:
        return timedelta(0)


def test_code_of_the_caller_may_put_while_its_value_is_encoded() -> None:
    setting = Setting()
    inner: list[Any] = []

    def act() -> None:
        if not inner:
            inner.append(setting.put(ROW, "k"))

    at = datetime(2026, 1, 1, tzinfo=Zone(act))
    assert setting.put({"n": 5, "at": at}, "k") == (setting.aggregate, 0)
    assert inner == ["slow"]
    told_ms = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
    (body,) = setting.aggregate.bodies
    assert body.endswith(EntryEncoder(SCHEMA).encode("k", None, 0, 0, None, {"n": 5, "at": told_ms})[-8:])


def test_an_interrupt_while_a_value_is_encoded_takes_nothing_and_is_raised() -> None:
    setting = Setting()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        setting.put({"n": 5, "at": datetime(2026, 1, 1, tzinfo=Zone(interrupt))}, "k")
    assert setting.taken == (0, 7)
    assert type(setting.put(ROW, "k")) is PendingReceipt


def test_a_value_that_changes_while_it_is_encoded_is_left_to_python() -> None:
    setting = Setting()
    value: dict[str, Any] = {"n": 5}
    value["at"] = datetime(2026, 1, 1, tzinfo=Zone(lambda: value.pop("n", None)))
    assert setting.put(value, "k") == "slow"


def test_a_value_whose_keys_bring_their_own_equality_is_left_to_python_before_that_runs() -> None:
    ran: list[object] = []

    class Name:
        def __hash__(self) -> int:
            return hash("n")

        def __eq__(self, other: object) -> bool:
            ran.append(other)
            return True

    setting = Setting()
    assert setting.put({"at": None, Name(): 1}, "k") == "slow"
    assert (setting.taken, ran) == ((0, 7), [])


def test_an_aggregate_that_is_being_read_takes_no_more_records() -> None:
    setting = Setting()
    setting.put(ROW, "k")
    (content,) = setting.aggregate.entries.content()
    with memoryview(content), pytest.raises(BufferError):
        setting.put(ROW, "k")
    with memoryview(content) as view:
        setting.aggregate.entries.let_go()
        assert len(bytes(view)) == len(bytes(content)) == BODY_BYTES + 1, "still there for who reads it"
    assert bytes(content) == b""


def test_the_object_that_puts_is_freed_with_its_putter() -> None:
    class Owner:
        def slow(self, *_: Any) -> None: ...

    owner = Owner()
    owner.put = Setting(slow=owner.slow).put  # type: ignore[attr-defined]
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None


def test_help_and_signature_are_the_python_method_s() -> None:
    def slow(value: Any, key: str) -> None: ...

    assert list(inspect.signature(Setting(slow=slow).put).parameters) == ["value", "key"]


def test_programs_that_are_none_are_refused() -> None:
    for program in ((), (99, *[0] * 9), (10, None, 0, 0, 0, 5, 0, 0, (), ())):
        with pytest.raises((TypeError, ValueError)):
            core.Encoder(program, False)


@pytest.mark.parametrize(("value", "told"), [("0", "None"), ("1", "<module"), ("no", "HEADRACE_COMPILED has to be 0")])
def test_the_environment_turns_it_off(value: str, told: str) -> None:
    command = [sys.executable, "-c", "from pipeline.compiled import core; print(core)"]
    done = subprocess.run(command, env=os.environ | {"HEADRACE_COMPILED": value}, capture_output=True, text=True, check=False)
    assert told in done.stdout + done.stderr
