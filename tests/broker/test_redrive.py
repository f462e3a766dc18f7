"""Dead letters back into their stream, and streams into others, on a real broker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline import Consumer, Producer, reshard
from pipeline.cli.main import app
from pipeline.errors import ConfigError
from pipeline.model.record import Record
from pipeline.replay.redrive import Redrive
from pipeline.replay.replay import Replay

Make = Callable[..., Any]


def put(config: Any, stream: str, numbers: range, **options: Any) -> None:
    with Producer(stream, config=config, linger_ms=600_000) as producer:
        for n in numbers:
            producer.put({"item": "x", "number": n, "note": None}, key=f"k{n % 3}", **options)
        producer.flush(30)


def bury_odd(config: Any, stream: str, count: int) -> dict[int, Record]:
    """Handle ``count`` records; those with odd numbers go to the dead letters. Returns all of them."""
    seen: dict[int, Record] = {}

    def handle(record: Record) -> None:
        seen[record.value["number"]] = record
        if record.value["number"] % 2:
            raise ValueError("odd")

    with Consumer(stream, group="g", config=config) as consumer:
        consumer.run(handle, retries=0, max_records=count)
    return seen


def read(config: Any, stream: str, count: int, group: str = "g") -> list[Record]:
    found: list[Record] = []
    with Consumer(stream, group=group, config=config) as consumer:
        deadline = time.monotonic() + 30
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} came"
            found += consumer.read(0.5)
        assert consumer.read(0.3) == []
    return found


def test_redriven_records_come_back_once_with_their_first_id_and_order(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, range(4), id="mine")
    first = bury_odd(config, stream, 4)
    with Redrive(config, stream) as dead:
        outcome = dead.run()
        assert (outcome.matched, outcome.redriven, outcome.cannot) == (2, 2, 0)
        again = dead.run()
        assert (again.matched, again.already, again.redriven) == (2, 2, 0)
    records = read(config, stream, 2)
    assert [record.value["number"] for record in records] == [1, 3]
    for record in records:
        before = first[record.value["number"]]
        assert (record.id, record.order, record.producer, record.seq, record.key) == (
            "mine", before.order, before.producer, before.seq, before.key
        )  # fmt: skip
        assert record.redriven
        assert record.offset > before.offset


def test_a_redrive_that_broke_off_is_ended_first_and_repeats_nothing(order_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, range(6))
    bury_odd(config, stream, 6)
    with Redrive(config, stream) as dead:
        marked: list[int] = []

        def die_after_one(run: Any, letter: int) -> None:
            if marked:
                raise KeyboardInterrupt  # all three are in the stream by now; one is written down
            marked.append(letter)

        monkeypatch.setattr(dead.log, "mark", die_after_one)
        with pytest.raises(KeyboardInterrupt):
            dead.run("error = 'ValueError'")
    with Redrive(config, stream) as dead:
        assert len(dead.log.redriven().open) == 1
        outcome = dead.run("attempts = 99")
        assert (outcome.resumed, outcome.matched) == (3, 0)
        assert dead.log.redriven().open == []
    assert [record.value["number"] for record in read(config, stream, 3)] == [1, 3, 5]


def test_only_letters_that_match_are_redriven_and_a_dry_run_does_nothing(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, range(6))
    bury_odd(config, stream, 6)
    with Redrive(config, stream) as dead:
        dry = dead.run("value.number >= 3", dry_run=True)
        assert (dry.matched, dry.redriven) == (2, 0)
        assert dead.run("value.number = 5").redriven == 1
        assert [kept.letter.error for kept, done in dead.matching(None) if not done] == ["ValueError", "ValueError"]
    assert [record.value["number"] for record in read(config, stream, 1)] == [5]


def test_a_record_that_fails_again_keeps_its_first_life_in_the_new_letter(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, range(2))
    first = bury_odd(config, stream, 2)[1]
    with Redrive(config, stream) as dead:
        dead.run()
        bury_odd(config, stream, 1)
        [(_, old), (kept, new)] = dead.matching(None)
        assert (old, new) == (True, False)
        assert kept.letter.order == (first.order.generation, first.order.offset, first.order.index)
        assert (kept.letter.producer, kept.letter.seq) == (first.producer, first.seq)
        assert dead.run().redriven == 1
    assert [record.value["number"] for record in read(config, stream, 1)] == [1]


def test_the_command_line_lists_shows_and_redrives(order_config: Make) -> None:
    config, stream = order_config(shards=1)
    put(config, stream, range(2))
    bury_odd(config, stream, 2)

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["--config", str(config.path), "dlq", *arguments, "--json"], catch_exceptions=False)
        return json.loads(done.stdout)

    [listed] = run("list", stream)
    assert (listed["key"], listed["error"], listed["redriven"]) == ("k1", "ValueError", False)
    shown = run("show", stream, str(listed["dead"]))
    assert shown["records"][0]["value"] == {"item": "x", "number": 1, "note": None}
    assert shown["text"] == "odd"
    assert run("redrive", stream, "--dry-run")["redriven"] == 0
    assert run("redrive", stream, "--rate", "1000")["redriven"] == 1
    assert run("list", stream)[0]["redriven"] is True


def test_a_replay_into_another_stream_keeps_order_over_a_split_and_makes_no_repeats_when_given_again(order_config: Make) -> None:
    config, stream = order_config(shards=1, copies=["copy"])
    target = f"{stream}-copy"
    put(config, stream, range(6))
    reshard.split(stream, "s0", config=config)
    put(config, stream, range(6, 12))
    whole = Replay(config, stream, target, "earliest", None, None)
    assert (whole.run().put, whole.run().put) == (12, 12)
    found: dict[str, list[int]] = {}
    for record in read(config, target, 12):
        found.setdefault(record.key, []).append(record.value["number"])
    assert found == {f"k{key}": list(range(key, 12, 3)) for key in range(3)}
    with pytest.raises(ConfigError, match="into itself"):
        Replay(config, stream, stream, "earliest", None, None)


def test_a_replay_takes_what_lies_between_its_times_and_matches(order_config: Make) -> None:
    config, stream = order_config(shards=1, copies=["copy"])
    put(config, stream, range(3))
    between = datetime.now(UTC) + timedelta(milliseconds=1)
    while datetime.now(UTC) <= between:
        time.sleep(0.001)
    put(config, stream, range(3, 6))
    late = Replay(config, stream, f"{stream}-copy", between, None, "value.number != 4").run()
    early = Replay(config, stream, f"{stream}-copy", "earliest", between, None).run()
    assert (late.read, late.put, early.put) == (3, 2, 3)
    numbers = {record.value["number"] for record in read(config, f"{stream}-copy", 5)}
    assert numbers == {0, 1, 2, 3, 5}


def test_the_replay_command_puts_a_stretch_elsewhere_or_lets_a_group_read_again_or_says_why_not(order_config: Make) -> None:
    config, stream = order_config(shards=1, copies=["copy"])
    put(config, stream, range(4))
    assert [record.value["number"] for record in read(config, stream, 4)] == [0, 1, 2, 3]

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["--config", str(config.path), "replay", stream, *arguments, "--json"])

    copied = run("--into", f"{stream}-copy", "--where", "value.number >= 2", "--rate", "1000", "--from", "earliest")
    assert json.loads(copied.stdout) == {
        "stream": stream, "into": f"{stream}-copy", "read": 4, "put": 2, "refused": 0, "bad": 0,
    }  # fmt: skip
    assert [record.value["number"] for record in read(config, f"{stream}-copy", 2)] == [2, 3]
    again = json.loads(run("--group", "g").stdout)
    assert again == {"stream": stream, "group": "g", "positions": {f"{stream}[0]": 0}}
    assert [record.value["number"] for record in read(config, stream, 4)] == [0, 1, 2, 3]

    for arguments, lacks in (
        ((), "needs either --into STREAM or --group G"),
        (("--group", "g", "--rate", "5"), "go with --into"),
        (("--into", f"{stream}-copy", "--from", "2026-01-31T12:00:00"), "the time needs its zone"),
        (("--into", f"{stream}-copy", "--to", "soon"), "expected a time such as"),
        (("--into", stream), "into itself"),
    ):
        refused = run(*arguments)
        assert refused.exit_code != 0
        assert lacks in f"{refused.exception} {refused.output}"
