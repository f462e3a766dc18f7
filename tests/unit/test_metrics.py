"""The definitions: Prometheus' rules, the page that is made from them, what is exposed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest

from pipeline import metrics
from pipeline.metrics import DEFINITIONS, Definition
from pipeline.observe.document import document

ROOT = Path(__file__).parents[2]
LABELS = {"stream", "group", "table", "shard", "state", "phase", "client", "route", "method", "status", "reason", "rank", "kind"}
LABELS |= {"rule"}
UNITS = ("seconds", "bytes", "ratio")


@pytest.mark.parametrize("one", DEFINITIONS.values(), ids=lambda one: one.name)
def test_a_metric_keeps_prometheus_rules(one: Definition) -> None:
    assert re.fullmatch(r"headrace(_[a-z0-9]+)+", one.name)
    assert one.name.endswith("_total") == (one.kind == "counter")
    assert not re.search(r"milli|micro_?s|_ms(_|$)|minutes|kilo|mega|percent", one.name), "base units"
    for unit in UNITS:
        if f"_{unit}" in one.name:
            assert re.search(rf"_{unit}(_total)?$", one.name), "the unit stands last"
    assert one.meaning
    assert not one.meaning.endswith(".")
    assert set(one.labels) <= LABELS, "a new label: is its number of values bounded?"
    assert not set(one.labels) & set(one.name.split("_")[2:]) - {"shard"}, "a label's name does not belong into the metric's"


def test_every_metric_of_ours_that_is_exposed_is_defined_and_with_these_labels() -> None:
    for family in REGISTRY.collect():
        if not family.name.startswith("headrace_"):
            continue
        name = family.name + ("_total" if family.type == "counter" else "")
        assert name in DEFINITIONS, family.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(DEFINITIONS[name].labels)


def test_a_sealed_shards_series_are_forgotten() -> None:
    metrics.SHARD_RECORDS.labels("forgetful", "s0").inc()
    metrics.forget_shard("forgetful", "s0")
    metrics.forget_shard("forgetful", "never-there")
    assert "forgetful" not in generate_latest(REGISTRY).decode()


def test_promtool_finds_nothing_to_say_about_the_exposition() -> None:
    assert shutil.which("promtool"), "promtool is missing: run `apt-get update && apt-get install -y prometheus`"
    metrics.RECORDS_ACKNOWLEDGED.labels("linted").inc()
    ours = "\n".join(
        line for line in generate_latest(REGISTRY).decode().splitlines() if re.match(r"(# (HELP|TYPE) )?headrace_", line)
    )
    done = subprocess.run(["promtool", "check", "metrics"], input=ours + "\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_page_of_metrics_is_what_the_definitions_say() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == document(), "run `python -m pipeline.observe.document`"


def test_every_metric_that_the_page_names_in_prose_exists() -> None:
    known = set(DEFINITIONS) | {f"{name}_bucket" for name, one in DEFINITIONS.items() if one.kind == "histogram"}
    assert set(re.findall(r"headrace_[a-z_]+", document())) <= known
