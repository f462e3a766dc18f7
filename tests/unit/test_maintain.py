"""Maintenance and time travel without Spark: configuration, what a log file tells, floors, the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from jobs.commits import FENCE, MAINTENANCE
from jobs.maintain import Maintained, in_words
from jobs.maintenance.retention import Retention, capped
from jobs.maintenance.source import changed_by_others
from jobs.maintenance.vacuum import removes_before
from jobs.supervise import Reaction, reaction
from jobs.timetravel.history import parse_version
from pipeline.cli import table_history
from pipeline.cli.main import app
from pipeline.config import load_config
from pipeline.errors import ConfigError

AT = datetime(2026, 1, 1, tzinfo=UTC)
AT_MS = 1_767_225_600_000


def load(folder: Path, maintenance: dict[str, Any] | None = None, **keep: dict[str, str]) -> Any:
    (folder / "s.avsc").write_text("{}")
    merge: dict[str, dict[str, Any]] = {"silver.s": {"from": "bronze.s", "merge": {"keys": ["id"]}}}
    tables = {"bronze.s": {"from": "s"}} | merge
    for layer, value in keep.items():
        tables[f"{layer}.s"] = tables[f"{layer}.s"] | {"keep": value}
    content = {"profile": "compose", "streams": {"s": {"schema": "s.avsc"}}, "tables": tables}
    (folder / "headrace.yml").write_text(yaml.safe_dump(content | ({"maintenance": maintenance} if maintenance else {})))
    return load_config(folder / "headrace.yml", {})


def log(info: dict[str, Any], *actions: dict[str, Any]) -> str:
    return "\n".join(json.dumps(one, separators=(",", ":")) for one in ({"commitInfo": info}, *actions))


def test_what_is_not_given_is_delta_s_safe_retention_a_long_log_and_nothing_deleted(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config.maintenance.every is None
    assert (config.maintenance.files, config.maintenance.log) == (timedelta(days=7), timedelta(days=400))
    assert config.table("bronze.s").keep is None


def test_durations_are_read(tmp_path: Path) -> None:
    config = load(tmp_path, {"every": "15m", "files": "240h", "log": "60d"}, bronze={"rows": "90d"})
    assert (config.maintenance.every, config.maintenance.files) == (timedelta(minutes=15), timedelta(days=10))
    assert config.table("bronze.s").keep.rows == timedelta(days=90)
    assert config.table("bronze.s").keep.dead_letters is None


@pytest.mark.parametrize(
    ("maintenance", "keep", "said"),
    [
        ({"files": "1h"}, {}, r"maintenance.files: below the safe retention of 7d"),
        ({"every": "1s"}, {}, "maintenance.every: expected 1m or more"),
        ({"log": "10d"}, {}, "log: expected 30d or more"),
        ({"files": "60d", "log": "40d"}, {}, "no less than files"),
        ({"files": "a week"}, {}, "expected a duration such as"),
        ({}, {"silver": {"rows": "1d"}}, r"tables.silver.s: keep: only bronze tables have it"),
        ({}, {"bronze": {"columns": "1d"}}, "is not an option here"),
    ],
)
def test_what_would_not_be_safe_is_refused_at_load(tmp_path: Path, maintenance: Any, keep: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, maintenance, **keep)


def test_only_removals_before_the_time_count() -> None:
    removal = {"remove": {"path": "x", "deletionTimestamp": AT_MS, "dataChange": False}}
    assert removes_before(log({}, removal), AT + timedelta(milliseconds=1))
    assert not removes_before(log({}, removal), AT)
    assert not removes_before(log({}, {"add": {"path": "x"}}), AT)
    assert removes_before(log({}, {"remove": {"path": "x"}}), AT), "one without a time may be of any age"


def test_a_change_of_rows_is_ours_or_another_s() -> None:
    removal = {"remove": {"path": "x", "dataChange": True}}
    ours = json.dumps({MAINTENANCE: {"step": "retention"}})
    assert changed_by_others(log({"operation": "UPDATE"}, removal)) == "UPDATE"
    assert changed_by_others(log({"operation": "DELETE", "userMetadata": ours}, removal)) is None
    assert changed_by_others(log({"operation": "RESTORE", "userMetadata": '{"headrace":1,"restored":3}'}, removal)) is None
    assert changed_by_others(log({"operation": "OPTIMIZE"}, {"remove": {"path": "x", "dataChange": False}})) is None
    assert changed_by_others(log({"operation": "WRITE"}, {"add": {"path": "x", "dataChange": True}})) is None


def test_floors_and_cutoff_never_fall() -> None:
    before = Retention({("t", 0): 10, ("t", 1): 5}, AT)
    after = before.raised({("t", 0): 7, ("t", 2): 3}, AT - timedelta(days=1))
    assert after == Retention({("t", 0): 10, ("t", 1): 5, ("t", 2): 3}, AT)
    assert after.to_json() == {"floors": {"t": {0: 10, 1: 5, 2: 3}}, "cutoff": AT.isoformat()}


def test_rows_that_a_follower_has_yet_to_read_stay() -> None:
    floors = {("t", 0): 10, ("t", 1): 5, ("t", 2): 4}
    assert capped(floors, []) == floors
    assert capped(floors, [{"t": {0: 7, 1: 9}}, {"t": {0: 8, 1: 3, 2: 9}}]) == {("t", 0): 7, ("t", 1): 3}


@pytest.mark.parametrize(
    ("metadata", "by"),
    [
        ({"headrace": 1, "micro_batch": 4}, "micro-batch 4"),
        ({"headrace": 1, "micro_batch": 4, "restored": 2}, "restore to version 2"),
        ({"headrace_restored": 2}, "restore to version 2"),
        ({"headrace": 1, "inputs": {}}, "refresh"),
        ({MAINTENANCE: {"step": "compaction"}}, "maintenance: compaction"),
        ({FENCE: "q"}, "restore: fence"),
        ([1], "ada"),
    ],
)
def test_a_version_says_who_made_it(metadata: Any, by: str) -> None:
    metrics = {"numTargetRowsInserted": "3", "numTargetRowsUpdated": "2"}
    info = {"timestamp": AT_MS, "operation": "MERGE", "userName": "ada", "userMetadata": json.dumps(metadata)}
    found = parse_version(7, log(info | {"operationMetrics": metrics}, {"add": {}}, {"add": {}}, {"remove": {}}))
    assert (found.version, found.at, found.by) == (7, "2026-01-01T00:00:00.000+00:00", by)
    assert (found.rows_inserted, found.rows_updated, found.rows_deleted) == (3, 2, None)
    assert (found.files_added, found.files_removed) == (2, 1)


def test_a_write_that_lost_against_maintenance_is_tried_again_only() -> None:
    lost = '[DELTA_CONCURRENT_DELETE_READ] … Conflicting commit: {"operation":"%s","userMetadata":"%s"}'
    assert reaction(lost % ("OPTIMIZE", ""), None) is Reaction.RETRY
    assert reaction(lost % ("DELETE", '{\\"headrace_maintenance\\":{}}'), None) is Reaction.RETRY
    assert reaction(lost % ("UPDATE", ""), None) is Reaction.STOP


def test_what_was_done_is_one_line() -> None:
    done = Maintained("bronze.s", rows_deleted=1_000, files_compacted=12, files_made=2, files=2, bytes=5_000)
    assert in_words(done) == "bronze.s: 1,000 rows deleted; 12 files into 2; now 2 files, 5,000 bytes"
    assert in_words(Maintained("bronze.s")) == "bronze.s: nothing to do; now 0 files, 0 bytes"
    assert in_words(Maintained("bronze.s", skipped="why")) == "bronze.s: left alone: why"


@pytest.mark.parametrize(
    ("typed", "module", "arguments"),
    [
        ("maintain bronze.s silver.s --json", "jobs.maintain", "--table bronze.s --table silver.s --json"),
        ("table history bronze.s --max 3", "jobs.table_versions", "history bronze.s --max 3"),
        ("table diff bronze.s 1 2026-01-01 --sample 9", "jobs.table_versions", "diff bronze.s 1 2026-01-01 --sample 9"),
        ("table restore bronze.s 1 --json", "jobs.table_versions", "restore bronze.s 1 --json"),
        ("table readers bronze.s", "jobs.table_versions", "readers bronze.s"),
        ("table register bronze.s bi --version 4", "jobs.table_versions", "register bronze.s bi --version 4"),
        ("table forget bronze.s bi", "jobs.table_versions", "forget bronze.s bi"),
    ],
)
def test_the_command_line_hands_over(monkeypatch: pytest.MonkeyPatch, typed: str, module: str, arguments: str) -> None:
    handed: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(table_history, "run_module", lambda name, given: handed.append((name, given)))
    done = CliRunner().invoke(app, typed.split())
    assert done.exit_code == 0, done.output
    assert handed == [(module, arguments.split())]
