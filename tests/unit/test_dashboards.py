"""Dashboards: what is committed is what the code makes, and it keeps the rules of Grafana's dashboard linter."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.metrics import DEFINITIONS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "grafana" / "dashboards"
FILES = sorted(FOLDER.glob("*.json"))
COMMITTED = {path.name: json.loads(path.read_text()) for path in FILES}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
KNOWN = {name + suffix for name, one in DEFINITIONS.items() for suffix in SUFFIXES[one.kind]} | {"up"}


@cache
def made() -> dict[str, str]:
    """In a process of its own: the script's neighbours are no modules of ours."""
    code = "import json, make; print(json.dumps(make.files()))"
    folder = ROOT / "docker" / "grafana"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True, timeout=120)
    return dict(json.loads(done.stdout))


def panels() -> Iterator[Any]:
    for name, board in COMMITTED.items():
        for panel in board["panels"]:
            yield pytest.param(board, panel, id=f"{name.removesuffix('.json')}: {panel['title']}")


def test_the_committed_files_are_what_the_code_makes() -> None:
    assert {path.name: path.read_text() for path in FILES} == made(), "run `python docker/grafana/make.py`"
    assert {board["uid"].removeprefix("headrace-") for board in COMMITTED.values()} == {
        "overview", "producers", "consumers", "shards", "tables", "registry", "broker",
    }  # fmt: skip


@pytest.mark.parametrize("board", COMMITTED.values(), ids=COMMITTED.keys())
def test_a_dashboard_has_its_variables_and_no_data_source_of_its_own(board: dict[str, Any]) -> None:
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for name, variable in variables.items():
        if variable["type"] != "query":
            continue
        assert variable["datasource"]["uid"] == "${datasource}", name
        assert variable["multi"], name
        assert variable["includeAll"], name
        assert variable["allValue"] == ".*", "an empty database has to match too"
        assert variable["refresh"] == 2, "on time range change"
        assert variable["label"], name
    assert {"job", "instance", "stream"} - ({"stream"} if board["uid"] == "headrace-tables" else set()) <= set(variables)
    assert board["editable"] is False
    assert board["title"]
    assert board["description"]
    assert "links" in board
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("board", "panel"), list(panels()))
def test_a_panel_says_what_it_shows_and_keeps_the_linters_rules(board: dict[str, Any], panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    variables = {one["name"] for one in board["templating"]["list"]}
    for target in panel["targets"]:
        expression = target["expr"]
        assert target["legendFormat"]
        assert target["datasource"]["uid"] == "${datasource}"
        assert "@" not in expression
        for selector in re.findall(r"(?<![a-z_])([a-z_]+)\{([^}]*)\}", expression):
            name, matchers = selector
            assert name in KNOWN, f"no metric {name}"
            assert 'job=~"$job"' in matchers
            assert 'instance=~"$instance"' in matchers
            definition = next((one for key, one in DEFINITIONS.items() if name.startswith(key)), None)
            for label in re.findall(r"(\w+)=~", matchers):
                assert label in ("job", "instance") or (definition is not None and label in definition.labels), label
        assert set(re.findall(r"\$(\w+)", expression)) - {"__rate_interval"} <= variables
        ranges = re.findall(r"\[([^\]]+)\]", expression)
        assert set(ranges) <= {"$__rate_interval"}
        assert ("rate(" in expression) == bool(ranges)
        counters = [name for name in re.findall(r"headrace_\w+", expression) if name.endswith("_total")]
        assert not counters or "rate(" in expression or "Totals" in panel["description"]


@pytest.mark.parametrize(("board", "panel"), list(panels()))
def test_a_panels_runbook_is_there(board: dict[str, Any], panel: dict[str, Any]) -> None:
    for link in panel.get("links", []):
        match = re.fullmatch(r"\$\{runbooks\}/([a-z-]+\.md)", link["url"])
        assert match
        assert (ROOT / "docs" / "runbooks" / match[1]).is_file()


def test_panels_of_a_dashboard_do_not_overlap() -> None:
    for board in COMMITTED.values():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            assert not cells & taken, panel["title"]
            assert at["x"] + at["w"] <= 24
            taken |= cells
