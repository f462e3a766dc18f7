"""Logs: one line an event, for people or machines, without secrets."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import logs
from pipeline.local.startup import _last_words


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    before, level, ours = list(root.handlers), root.level, logging.getLogger("headrace").level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("headrace").setLevel(ours)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_is_one_json_object_on_one_line_where_nobody_looks() -> None:
    logs.configure(role="consumer", stream=(out := io.StringIO()))
    logging.getLogger("headrace.consume").warning("no commit for now: %s", "two\nlines", extra={"stream": "flights"})
    (event,) = lines(out)
    assert event["event"] == "no commit for now: two lines"
    assert (event["level"], event["logger"], event["stream"]) == ("warning", "headrace.consume", "flights")
    assert event["role"] == "consumer"
    assert str(event["timestamp"]).endswith("Z")


def test_an_exception_stays_on_the_line_of_its_event() -> None:
    logs.configure(stream=(out := io.StringIO()))
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("headrace.produce").exception("the sending thread failed")
    (event,) = lines(out)
    assert "ValueError: broken" in str(event["exception"])


def test_a_person_at_a_terminal_gets_text_and_json_when_asked_for() -> None:
    logs.configure(stream=(out := Terminal()))
    logging.getLogger("headrace.produce").warning("hello")
    assert "hello" in out.getvalue()
    assert not out.getvalue().startswith("{")
    logs.configure(stream=(out := Terminal()), as_json=True)
    logging.getLogger("headrace.produce").warning("hello")
    assert lines(out)[0]["event"] == "hello"


def test_a_persons_traceback_does_not_print_local_variables() -> None:
    logs.configure(stream=(out := Terminal()))
    try:
        content = "-".join(["record", "content"])
        raise ValueError(len(content))
    except ValueError:
        logging.getLogger("headrace.produce").exception("failed")
    assert "ValueError: 14" in out.getvalue()
    assert "record-content" not in out.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "sasl.password=hunter22",
        "settings: {'sasl.password': 'hunter22', 'x': 1}",
        '{"ssl.key.password": "hunter22"}',
        "registry_auth: me:hunter22",
        "GET http://me:hunter22@registry:8081/subjects failed",
        "Authorization: Basic aHVudGVyMjI=hunter22",
        "aws_secret_access_key = hunter22",
    ],
)
@pytest.mark.parametrize("terminal", [True, False])
def test_secrets_are_struck_out(text: str, terminal: bool) -> None:
    logs.configure(stream=(out := Terminal() if terminal else io.StringIO()))
    logging.getLogger("headrace.kafka").error("failed: %s", text)
    logging.getLogger("anything").error("failed", extra={"detail": text})
    assert "failed" in out.getvalue()
    assert "hunter22" not in out.getvalue()


def test_bytes_are_told_by_their_number_only_and_long_texts_are_cut() -> None:
    logs.configure(stream=(out := io.StringIO()))
    logging.getLogger("headrace.x").warning("%s", "y" * 10_000, extra={"raw": b"content"})
    (event,) = lines(out)
    assert event["raw"] == "<7 bytes>"
    assert len(str(event["event"])) < 5_000


def test_the_level_of_our_own_loggers_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for wished, expected in (("debug", 2), ("warning", 0), ("nonsense", 1)):
        monkeypatch.setenv("HEADRACE_LOG", wished)
        logs.configure(stream=(out := io.StringIO()))
        logging.getLogger("headrace.x").info("info")
        logging.getLogger("headrace.x").debug("debug")
        logging.getLogger("others").info("not ours")
        assert len(lines(out)) == expected, wished


def test_importing_headrace_leaves_a_programs_own_logging_alone() -> None:
    code = "import logging, pipeline; assert not logging.getLogger().handlers + logging.getLogger('headrace').handlers"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_stack_quotes_the_telling_line_of_a_log_of_json_events(tmp_path: Path) -> None:
    log = tmp_path / "registry.log"
    log.write_text(
        '{"event": "started", "level": "info", "timestamp": "2026-01-01T00:00:00Z"}\n'
        '{"event": "topic is not compacted", "level": "error", "timestamp": "2026-01-01T00:00:01Z"}\n'
        '{"event": "ended", "level": "info", "timestamp": "2026-01-01T00:00:02Z"}\n'
    )
    assert _last_words(log, 0) == "2026-01-01T00:00:01Z ERROR topic is not compacted"
