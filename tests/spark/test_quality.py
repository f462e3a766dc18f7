"""Quality rules on the way from bronze to silver, and over a micro-batch of bronze."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from delta.tables import DeltaTable
from prometheus_client import REGISTRY
from pyspark.sql import SparkSession

from jobs import tables
from jobs.audits.silver import audit_silver
from jobs.commits import newest_commit_of_ours
from jobs.quality import held as holding
from jobs.quality import results, shown
from jobs.quality.held import held, redrive
from jobs.rejects import HELD, QUARANTINE_SUFFIX, Companion
from jobs.silver import SilverJob
from pipeline.errors import ConfigError, HeadraceError, InvariantError, RuleError
from tests.spark.rows import arrive, expecting, state, with_bronze

MakeLake = Callable[..., Any]


@pytest.fixture
def shop(lake: MakeLake) -> Any:
    return with_bronze(lake())


def quarantined(shop: Any) -> dict[str, list[str]]:
    waiting = Companion(shop.spark, shop.config, "silver.orders", QUARANTINE_SUFFIX).waiting()
    return {} if waiting is None else {row["item"]: row[HELD]["reasons"] for row in waiting.collect()}


def judged(shop: Any) -> dict[str, tuple[Any, ...]]:
    """rule → (rows_checked, rows_failed, observed, passed) of each result; a rule that is there twice fails."""
    found = results.read(shop.spark, shop.config)
    rows = [] if found is None else found.collect()
    out = {row["rule"]: (row["rows_checked"], row["rows_failed"], row["observed"], row["passed"]) for row in rows}
    assert len(out) == len(rows), "a result is there twice"
    return out


def die(*_: Any) -> None:
    raise InvariantError("killed by the test")


def test_each_row_goes_where_the_rules_that_it_fails_say_and_the_results_count_it(
    shop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    expecting(
        shop,
        {"rule": "100 / number > 10", "on_fail": "quarantine", "name": "small"},  # raises for 0, is unknown for no number
        {"column": "note", "values": ["ok", "fine"], "on_fail": "drop"},
        {"column": "item", "matches": "[a-z]+"},
        {"column": "number", "between": [None, 1000], "on_fail": "quarantine"},
        {"column": "item", "complete": True},
        {"rule": "number < 0", "name": "nobody"},
    )
    rows = [
        (1, "good", 1, "ok"), (2, "Warned", 2, None), (3, "dropped", 3, "bad"), (4, "large", 10, "ok"), (5, "zero", 0, "bad"),
        (6, "larger", 2000, "fine"), (7, "deleted", None, None),
    ]  # fmt: skip
    arrive(shop, *rows)
    with caplog.at_level(logging.WARNING):
        shop.run("silver.orders")
    assert state(shop) == {"good": 1, "Warned": 2}
    assert quarantined(shop) == {
        "large": ["small", "nobody"],
        "zero": ["small", "note values ok, fine", "nobody"],
        "larger": ["small", "number between any and 1000", "nobody"],
    }
    assert judged(shop) == {
        "small": (6, 3, "0.5", False),
        "note values ok, fine": (6, 2, "0.666667", False),
        "item matches [a-z]+": (6, 1, "0.833333", False),
        "number between any and 1000": (6, 1, "0.833333", False),
        "item complete": (6, 0, "1", True),
        "nobody": (6, 6, "0", False),
    }
    assert "every one of 6 rows fails 'nobody' (on_fail: warn): is the rule right?" in caplog.text
    labels = {"table": "silver.orders", "rule": "small"}
    assert REGISTRY.get_sample_value("headrace_quality_holds", labels) == 0
    assert (REGISTRY.get_sample_value("headrace_quality_failed_rows_total", labels) or 0) >= 3


def test_a_micro_batch_is_judged_as_a_whole(shop: Any) -> None:
    expecting(
        shop,
        {"column": "note", "complete": 0.75},
        {"column": "note", "complete": 0.8, "name": "more notes"},
        {"rows": [1, 3]},
        {"column": "number", "mean": [4, 6]},
        {"column": "number", "stddev": [None, 3]},
        {"column": "at", "fresh_within": "2h"},
        {"column": "at", "fresh_within": "30m", "name": "fresher"},
        {"column": "item", "exists": True},
        {"column": "price", "exists": True},
        {"column": "number", "type": "int"},
        {"column": "number", "type": "string", "name": "wrong type"},
        {"sql": "SELECT count(DISTINCT item) = count(*) FROM rows", "name": "different items"},
        {"sql": "SELECT max(number) < 8 FROM rows", "name": "small numbers"},
        transform=[{"columns": {"at": "_meta.ingested_at - make_dt_interval(0, number)"}}],
    )
    arrive(shop, (1, "a", 1, "x"), (2, "b", 5, "x"), (3, "c", 6, None), (4, "d", 8, "x"), (5, "gone", None, None))
    shop.run("silver.orders")
    assert judged(shop) == {
        "note complete 0.75": (4, None, "0.75", True),
        "more notes": (4, None, "0.75", False),
        "rows 1 and 3": (4, None, "4", False),
        "number mean 4.0 and 6.0": (4, None, "5", True),
        "number stddev any and 3.0": (4, None, "2.94392", True),  # of 1, 5, 6, 8: the root of 26 / 3
        "at fresh_within 2h": (4, None, "3600", True),
        "fresher": (4, None, "3600", False),
        "item exists": (4, None, "string", True),
        "price exists": (4, None, "no such column", False),
        "number type int": (4, None, "int", True),
        "wrong type": (4, None, "int", False),
        "different items": (4, None, "true", True),
        "small numbers": (4, None, "false", False),
    }
    assert len(state(shop)) == 4


def test_stop_stops_before_anything_is_written_and_goes_on_once_the_rule_is_corrected(shop: Any) -> None:
    other = {"column": "note", "complete": True, "on_fail": "quarantine"}
    arrive(shop, (1, "apple", 1, "x"))
    expecting(shop, other)
    shop.run("silver.orders")
    version = shop.version("silver.orders")
    arrive(shop, (2, "apple", 2, "x"), (3, "pear", -3, None))
    expecting(shop, other, {"rule": "number > 0", "on_fail": "stop"})
    with pytest.raises(RuleError, match=r"silver\.orders: 1 of 2 rows fails 'number > 0'\. Nothing of this micro-batch"):
        shop.run("silver.orders")
    assert (shop.version("silver.orders"), quarantined(shop), len(judged(shop))) == (version, {}, 1)
    expecting(shop, {"rule": "number > -5", "on_fail": "stop"})
    shop.run("silver.orders")
    assert state(shop) == {"apple": 2, "pear": -3}


def test_a_micro_batch_that_died_before_its_merge_is_judged_and_kept_once(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expecting(shop, {"rule": "number > 0", "on_fail": "quarantine"})
    arrive(shop, (1, "apple", 1, None), (2, "pear", -1, None))
    with monkeypatch.context() as patch:
        patch.setattr(SilverJob, "_take", die)
        with pytest.raises(InvariantError):
            shop.run("silver.orders")
    assert quarantined(shop) == {"pear": ["number > 0"]}
    shop.run("silver.orders")
    once = {"number > 0": (2, 1, "0.5", False)}
    companion = tables.table_path(shop.config, "silver.orders__quarantine")
    assert (state(shop), judged(shop)) == ({"apple": 1}, once)
    assert shop.spark.read.format("delta").load(companion).count() == 1
    shutil.rmtree(tables.checkpoint_path(shop.config, "silver.orders"))  # and all of bronze once more, by another query
    shop.run("silver.orders")
    assert state(shop) == {"apple": 1}
    assert shop.spark.read.format("delta").load(companion).count() == 1


def test_a_redriven_row_passes_the_rules_anew_goes_in_once_and_never_over_a_newer_one(
    shop: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expecting(shop, {"rule": "number > 0", "on_fail": "quarantine"})
    arrive(shop, (1, "old", -1, None), (2, "lone", -2, None), (3, "bad", -30, None), (4, "old", 5, None))
    shop.run("silver.orders")
    arrive(shop, (5, "old", 6, None))
    shop.run("silver.orders")
    assert state(shop) == {"old": 6}
    found = held(shop.spark, shop.config, "silver.orders", "number < -9", 10)
    assert [(one["reasons"], one["row"]["number"]) for one in found] == [(["number > 0"], -30)]
    assert redrive(shop.spark, shop.config, "silver.orders", None).redriven == 0
    expecting(shop, {"rule": "number > -10", "on_fail": "quarantine"})
    dry = redrive(shop.spark, shop.config, "silver.orders", None, dry_run=True)
    assert (dry.matched, dry.redriven, state(shop)) == (3, 2, {"old": 6})
    with monkeypatch.context() as patch:
        patch.setattr(Companion, "mark_redriven", die)
        with pytest.raises(InvariantError):
            redrive(shop.spark, shop.config, "silver.orders", None)
    done = redrive(shop.spark, shop.config, "silver.orders", "item IN ('old', 'lone')")
    assert (done.matched, done.redriven) == (2, 2)
    assert state(shop) == {"old": 6, "lone": -2}
    newest = newest_commit_of_ours(shop.spark, tables.table_path(shop.config, "silver.orders"))
    assert newest is not None
    assert newest.metadata is not None
    assert newest.metadata["source_version"] == shop.version()  # of bronze: a restore asks for it
    assert list(quarantined(shop)) == ["bad"]
    assert audit_silver(shop.spark, shop.config, "silver.orders").ok
    monkeypatch.setattr(SparkSession, "stop", lambda self: None)  # it is everybody's
    told = ["silver.orders", "--json", "--config", str(shop.folder / "headrace.yml")]
    said = []
    for command, options in ((holding.main, ["--dry-run"]), (holding.main, ["--list"]), (shown.main, [])):
        assert command([*told, *options]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == {"matched": 1, "redriven": 0, "table": "silver.orders", "dry_run": True}
    assert [(one["reasons"], one["key"], one["row"]["item"]) for one in said[1]] == [(["number > 0"], "bad", "bad")]
    assert [(one["rows_failed"], one["passed"]) for one in said[2]] == [(0, True), (3, False)]  # newest first
    companion = Companion(shop.spark, shop.config, "silver.orders", QUARANTINE_SUFFIX)
    DeltaTable.forPath(shop.spark, companion.path).delete("item = 'bad'")
    assert [one.problem for one in audit_silver(shop.spark, shop.config, "silver.orders").findings] == [
        "keys of bronze that are not in the table"
    ]
    assert redrive(shop.spark, shop.config, "silver.orders", None).redriven == 0


def test_references_and_uniqueness_look_at_other_rows(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "fruit.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "price"), ("apple", 2), ("pear", 3), ("pear", 4)])
    with_reference(monkeypatch, shop, fruit=tmp_path / "fruit.csv")
    expecting(
        shop,
        {"column": "note", "references": "reference.fruit.name", "on_fail": "quarantine", "name": "known"},
        {"column": "number", "unique": "1h", "on_fail": "quarantine", "name": "once"},
    )
    arrive(shop, (1, "a", 1, "apple"), (2, "b", 2, "pear"), (3, "c", 1, "apple"), (4, "d", 3, "rock"), (5, "e", 4, None))
    shop.run("silver.orders")
    assert quarantined(shop) == {"c": ["once"], "d": ["known"]}
    arrive(shop, (6, "f", 2, None), (7, "g", 9, None), after=timedelta(minutes=59))  # 2 was there within the hour
    arrive(shop, (8, "h", 4, None), (9, "i", 9, None), after=timedelta(minutes=61))  # 4 was not, 9 was
    shop.run("silver.orders")
    assert quarantined(shop) == {"c": ["once"], "d": ["known"], "f": ["once"], "i": ["once"]}
    assert set(state(shop)) == {"a", "b", "e", "g", "h"}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"rule": "number >"}, "does not parse"),
        ({"rule": "price > 1"}, "does not fit the columns"),
        ({"column": "price", "complete": True}, "no column 'price'; there are: item, number, note"),
        ({"rule": "number + 1"}, "expected a condition"),
        ({"rule": "1 = 2"}, "holds for every row or for none"),
        ({"rule": "number > rand()"}, "another answer each time"),
        ({"rule": "_meta.timestamp < now()"}, "_meta.ingested_at"),
        ({"column": "item", "matches": "(["}, "no regular expression"),
        ({"column": "item", "between": [1, 2]}, "cannot be compared with a column of type string"),
        ({"column": "number", "values": ["one"]}, "cannot be compared with a column of type int"),
        ({"column": "item", "mean": [1, 2]}, "needs a column of numbers"),
        ({"column": "item", "fresh_within": "1h"}, "needs a column of times"),
        ({"column": "item", "type": "integral"}, "no type of Spark's SQL"),
        ({"column": "item", "references": "reference.nothing.x"}, "no reference or table 'nothing'"),
        ({"sql": "DROP TABLE rows"}, r"is no query \(DropTable\)"),
        ({"sql": "WITH a AS (SELECT 1) INSERT INTO rows SELECT * FROM a"}, r"is no query \(Insert"),
        ({"sql": "INSERT OVERWRITE DIRECTORY '/tmp/x' SELECT 1"}, "is no query"),
        ({"sql": "SELECT 1 FROM rows"}, "one column that is true or false"),
        ({"sql": "SELECT true FROM elsewhere"}, "a query over the view `rows`"),
    ],
)
def test_a_rule_that_cannot_be_asked_is_refused_before_any_row_is_read(
    unchanging: Any, rule: dict[str, Any], said: str
) -> None:
    expecting(unchanging, rule)
    with pytest.raises(HeadraceError, match=said) as raised:
        SilverJob(unchanging.spark, unchanging.config, "silver.orders")
    assert isinstance(raised.value, ConfigError)
    assert "tables.silver.orders.expect (" in str(raised.value)


@pytest.fixture(scope="module")
def unchanging(new_lake: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return with_bronze(new_lake(tmp_path_factory.mktemp("unchanging")))


def test_rules_of_bronze_warn_or_stop_and_their_results_are_there_once(lake: MakeLake) -> None:
    shop = lake()
    shop.table_options["bronze.orders"] = {"from": shop.stream, "expect": [{"rule": "number > 1"}, {"rows": [None, 3]}]}
    shop.put(("a", 1), ("b", 2), ("c", 3))
    shop.run("bronze.orders")
    assert (shop.numbers(), judged(shop)["number > 1"]) == ([1, 2, 3], (3, 1, "0.666667", False))
    shop.table_options["bronze.orders"] = {"from": shop.stream, "expect": [{"rule": "number > 0", "on_fail": "stop"}]}
    shop.put(("d", 0), ("e", 5))
    with pytest.raises(RuleError, match=r"bronze\.orders: 1 of 2 rows fails 'number > 0'"):
        shop.run("bronze.orders")
    assert (shop.numbers(), len(judged(shop))) == ([1, 2, 3], 2)
    shop.table_options["bronze.orders"] = {"from": shop.stream}
    shop.run("bronze.orders")
    assert shop.numbers() == [0, 1, 2, 3, 5]


def with_reference(monkeypatch: pytest.MonkeyPatch, shop: Any, **files: Path) -> None:
    config = type(shop).config.fget  # type: ignore[attr-defined]
    with_files = lambda self: config(self).model_copy(update={"references": files})  # noqa: E731
    monkeypatch.setattr(type(shop), "config", property(with_files))
