"""The demo's feed: what it stores is never ahead of what is acknowledged, and it goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from connectors.nycflights import FlightEvents
from connectors.positions import PositionFile
from jobs.demo.producer_process import Feed
from pipeline.errors import StopError

EVENTS = FlightEvents(500)


class FakeProducer:
    """Acknowledges what was put, as far as ``acknowledges`` lets it; a flush acknowledges all."""

    def __init__(self, acknowledges: int = 10**9, failed: int = 0) -> None:
        self.positions: list[int] = []
        self.keys: list[str] = []
        self.stats = SimpleNamespace(records_failed=failed)
        self._upto = acknowledges

    @property
    def acknowledged_position(self) -> int:
        return min(self._upto, self.positions[-1]) if self.positions else -1

    def put(self, value: dict[str, Any], key: str, *, position: int) -> None:
        self.positions.append(position)
        self.keys.append(key)

    def flush(self, timeout: float) -> None:
        self._upto = 10**9

    def __enter__(self) -> FakeProducer:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, producer: FakeProducer) -> Feed:
    monkeypatch.setattr("jobs.demo.producer_process.Producer", lambda stream, name: producer)
    return Feed("flights", EVENTS, tmp_path)


def test_a_feed_puts_everything_once_from_its_stored_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PositionFile(tmp_path / "flights.json").store(99)
    producer = FakeProducer()
    feed(tmp_path, monkeypatch, producer).run()
    assert producer.positions == list(range(100, len(EVENTS)))
    assert producer.keys[:50] == list(next(EVENTS.read(100)).keys[:50])
    assert PositionFile(tmp_path / "flights.json").load() == len(EVENTS) - 1


def test_what_is_stored_on_the_way_stays_behind_what_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(tmp_path, monkeypatch, FakeProducer(acknowledges=700)).run()
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    on_the_way = [report for report in reports if not report["done"]]
    assert any(report["stored"] >= 0 for report in on_the_way)
    for report in on_the_way:
        assert report["stored"] < report["acknowledged"] <= report["put"]
        assert report["stored"] < 700
    assert reports[-1] == {
        "stream": "flights",
        "put": len(EVENTS) - 1,
        "acknowledged": len(EVENTS) - 1,
        "stored": len(EVENTS) - 1,
        "done": True,
    }


def test_nothing_is_stored_beyond_a_record_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StopError, match="not acknowledged"):
        feed(tmp_path, monkeypatch, FakeProducer(failed=1)).run()
    assert PositionFile(tmp_path / "flights.json").load() == -1
