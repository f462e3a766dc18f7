"""`headrace quality`: the modules that do the work, and what they are told."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import quality
from pipeline.cli.main import app


@pytest.mark.parametrize(
    ("line", "module", "arguments"),
    [
        (["results"], "jobs.quality.shown", ["--max", "100"]),
        (["results", "silver.x", "--max", "5", "--json"], "jobs.quality.shown", ["silver.x", "--max", "5", "--json"]),
        (["held", "silver.x", "--where", "a"], "jobs.quality.held", ["silver.x", "--list", "--where", "a", "--max", "100"]),
        (["redrive", "silver.x", "--dry-run"], "jobs.quality.held", ["silver.x", "--dry-run"]),
        (["profile", "silver.x", "--svg", "x.svg"], "jobs.quality.profile", ["silver.x", "--svg", "x.svg"]),
        (["suggest", "silver.x", "--json"], "jobs.quality.suggest", ["silver.x", "--json"]),
    ],
)
def test_each_command_runs_its_module_with_its_options(
    monkeypatch: pytest.MonkeyPatch, line: list[str], module: str, arguments: list[str]
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(quality, "run_module", lambda name, told: seen.append((name, told)))
    assert CliRunner().invoke(app, ["quality", *line]).exit_code == 0
    assert seen == [(module, arguments)]
    assert find_spec(module) is not None
