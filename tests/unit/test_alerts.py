"""Alerts: valid, each with a runbook, each seen to fire and not to fire by promtool."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.metrics import DEFINITIONS

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "rules" / "headrace.yml").read_text())
ALERTS: dict[str, Any] = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
CASES = yaml.safe_load((PROMETHEUS / "tests" / "headrace_test.yml").read_text())["tests"]
RUNBOOKS = {path.name: path.read_text() for path in (ROOT / "docs" / "runbooks").glob("*.md")}


def promtool(*arguments: str) -> None:
    assert shutil.which("promtool"), "promtool is missing: run `apt-get update && apt-get install -y prometheus`"
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(PROMETHEUS / "rules" / "headrace.yml"))


def test_every_alerts_cases_come_out_as_they_should() -> None:
    promtool("test", "rules", str(PROMETHEUS / "tests" / "headrace_test.yml"))


def test_every_alert_has_a_case_where_it_fires_and_one_where_it_does_not() -> None:
    checks = [check for case in CASES for check in case["alert_rule_test"]]
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == set(ALERTS)
    assert {check["alertname"] for check in checks if not check["exp_alerts"]} == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_severity_a_sentence_and_a_runbook_that_names_it(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["summary"]
    runbook = Path(alert["annotations"]["runbook"])
    assert runbook.parts[:2] == ("docs", "runbooks")
    text = RUNBOOKS[runbook.name]
    assert name in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## What it means", "## Look", "## Do"]


def test_no_runbook_is_left_without_an_alert() -> None:
    assert {Path(alert["annotations"]["runbook"]).name for alert in ALERTS.values()} == set(RUNBOOKS)


def test_rules_name_only_metrics_that_exist() -> None:
    expressions = " ".join(rule["expr"] for group in RULES["groups"] for rule in group["rules"])
    named = set(re.findall(r"(?<!:)\bheadrace_[a-z_]+(?!:)", expressions)) - {"headrace_stale"}
    assert named <= set(DEFINITIONS)
