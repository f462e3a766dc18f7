"""OpenLineage events: which streams and tables a table is made from, and how its run went."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.lineage import FILE, traced
from pipeline.config import Config, load_config

TABLES = {"bronze.s": {"from": "s"}, "silver.s": {"from": "bronze.s", "merge": {"keys": ["id"]}}}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    (tmp_path / "s.avsc").write_text("{}")
    profiles = {"here": {"bootstrap": "k1:9092,k2:9092", "registry": "http://r:8081"}}
    streams = {"s": {"schema": "s.avsc"}}
    content = {"profile": "here", "profiles": profiles, "warehouse": "lake", "streams": streams, "tables": TABLES}
    (tmp_path / "headrace.yml").write_text(yaml.safe_dump(content))
    return load_config(tmp_path / "headrace.yml")


def events(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "home" / FILE).read_text().splitlines()]


def test_a_run_that_ends_well_names_streams_and_tables(config: Config, tmp_path: Path) -> None:
    with traced(config, ["bronze.s", "silver.s"]):
        pass
    told = events(tmp_path)
    assert [(one["job"]["name"], one["eventType"]) for one in told] == [
        ("bronze.s", "START"), ("silver.s", "START"), ("bronze.s", "COMPLETE"), ("silver.s", "COMPLETE"),
    ]  # fmt: skip
    lake = str(tmp_path / "lake")
    bronze, silver = told[2], told[3]
    assert [(one["namespace"], one["name"]) for one in bronze["inputs"]] == [("kafka://k1:9092", "s")]
    assert [(one["namespace"], one["name"]) for one in bronze["outputs"]] == [("file", f"{lake}/bronze/s")]
    assert silver["inputs"][0]["name"] == bronze["outputs"][0]["name"]
    assert bronze["run"]["runId"] == told[0]["run"]["runId"]


def test_a_run_that_fails_says_so(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), traced(config, ["bronze.s"]):
        raise ValueError("broken")
    assert [one["eventType"] for one in events(tmp_path)] == ["START", "FAIL"]


def test_lineage_that_cannot_be_written_does_not_stop_a_job(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING), traced(config, ["bronze.s"]):
        pass
    assert "no lineage of bronze.s" in caplog.text
