"""Steps between bronze and silver, and the rows that fail at one."""

from __future__ import annotations

import csv
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.quality.held import redrive
from jobs.rejects import HELD, REJECTED_SUFFIX, Companion
from jobs.silver import SilverJob
from pipeline.errors import ConfigError, HeadraceError, StopError
from tests.spark.rows import arrive, expecting, with_bronze
from tests.spark.test_quality import with_reference

N = "cast(note AS int)"
MakeLake = Callable[..., Any]


@pytest.fixture
def shop(lake: MakeLake) -> Any:
    return with_bronze(lake())


def rejected(shop: Any) -> dict[str, list[str]]:
    waiting = Companion(shop.spark, shop.config, "silver.orders", REJECTED_SUFFIX).waiting()
    return {} if waiting is None else {row["item"]: row[HELD]["reasons"] for row in waiting.collect()}


def rows(shop: Any) -> set[tuple[Any, ...]]:
    return {tuple(row) for row in shop.read("silver.orders").collect()}


def prices(folder: Path, *lines: tuple[Any, ...]) -> Path:
    with (folder / "prices.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("fruit", "price", "origin"), *lines])
    return folder / "prices.csv"


def test_the_steps_follow_each_other_and_a_row_that_fails_goes_to_the_dead_letters_with_the_steps_name(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_reference(monkeypatch, shop, prices=prices(tmp_path, ("apple", 2, "here"), ("pear", 3, "there")))
    monkeypatch.setitem(sys.modules, "shop_steps", module(shout=lambda df: df.withColumn("fruit", F.upper("fruit"))))
    expecting(
        shop,
        {"rule": "fruit <> 'ROTTEN'", "on_fail": "drop"},
        transform=[
            {"cast": {"number": "smallint"}},
            # The same cast thrice: Spark must not compute it once, outside of where it may fail.
            {"columns": {"both": f"named_struct('a', {N}, 'b', {N} * 2)", "twice": f"{N} * 2 + cast(100 / number AS int)"}},
            {"filter": "1 / (number - 7) < 1", "name": "seventh"},
            {"flatten": "both"},
            {"join": "prices", "by": {"item": "fruit"}, "take": ["price"]},
            {"rename": {"item": "fruit"}},
            {"python": "shop_steps:shout"},
            {"select": ["fruit", "price", "twice", "both_b"]},
        ],
        keys=["fruit"],
    )
    arrive(
        shop,
        (1, "apple", 50, "4"), (2, "letters", 1, "x"), (3, "zero", 0, "1"), (4, "filtered", 8, "1"), (5, "seven", 7, "1"),
        (6, "unknown", 20, None), (7, "rotten", 9, "1"), (8, "pear", 10, "5"), (9, "large", 100_000, "1"),
    )  # fmt: skip
    shop.run("silver.orders")
    assert rows(shop) == {("APPLE", 2, 10, 8), ("UNKNOWN", None, None, None), ("PEAR", 3, 20, 10)}
    assert rejected(shop) == {
        "letters": ["columns both, twice: both"], "zero": ["columns both, twice: twice"], "seven": ["seventh"],
        "large": ["cast number"],
    }  # fmt: skip


def test_a_delete_passes_filters_and_finds_its_key_under_another_name(shop: Any) -> None:
    steps = [{"filter": "number > 0"}, {"columns": {"product": "upper(item)"}}, {"select": ["product", "number"]}]
    expecting(shop, transform=steps, keys=["product"])
    arrive(shop, (1, "apple", 1, None), (2, "pear", 2, None))
    shop.run("silver.orders")
    assert rows(shop) == {("APPLE", 1), ("PEAR", 2)}
    arrive(shop, (3, "apple", None, None))
    shop.run("silver.orders")
    assert rows(shop) == {("PEAR", 2)}


def test_a_reference_is_read_anew_when_it_changed_and_refused_once_it_would_multiply_rows(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_reference(monkeypatch, shop, prices=prices(tmp_path, ("apple", 2, "here")))
    expecting(shop, transform=[{"join": "prices", "by": {"item": "fruit"}}, {"select": ["item", "number", "price"]}])
    job = SilverJob(shop.spark, shop.config, "silver.orders")
    arrive(shop, (1, "apple", 1, None))
    stored = shop.spark.read.format("delta").load(job._source_path)
    take = lambda n: [(r["item"], r["price"]) for r in taken(job, stored, n)]  # noqa: E731
    assert take(0) == [("apple", 2)]
    prices(tmp_path, ("apple", 30, "here"))
    assert take(1) == [("apple", 30)]
    prices(tmp_path, ("apple", 30, "here"), ("apple", 40, "there"))
    with pytest.raises(HeadraceError, match=r"prices has several rows with the same fruit \(apple, say\).*multiply rows"):
        take(2)
    job.close()


def taken(job: SilverJob, stored: DataFrame, micro_batch: int) -> list[Any]:
    with job.intake.taken(stored, micro_batch, "a query") as found:
        return found.collect()


def test_a_row_that_failed_at_a_step_is_redriven_through_the_corrected_one_once(shop: Any) -> None:
    expecting(shop, {"rule": "number < 100", "on_fail": "quarantine"}, transform=[{"cast": {"note": "int"}}])
    arrive(shop, (1, "apple", 1, "7 kg"), (2, "pear", 2, "8"), (3, "heavy", 500, "9 kg"))
    shop.run("silver.orders")
    assert (rows(shop), set(rejected(shop))) == ({("pear", 2, 8)}, {"apple", "heavy"})
    corrected = [{"columns": {"note": "cast(regexp_extract(note, '[0-9]+', 0) AS int)"}}]
    expecting(shop, {"rule": "number < 100", "on_fail": "quarantine"}, transform=corrected)
    done = redrive(shop.spark, shop.config, "silver.orders", None)
    assert (done.matched, done.redriven) == (2, 1)  # the heavy one fails a rule now
    assert rows(shop) == {("pear", 2, 8), ("apple", 1, 7)}
    assert redrive(shop.spark, shop.config, "silver.orders", None).redriven == 0


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"columns": {"x": "number +"}}, "does not parse"),
        ({"columns": {"x": "price * 2"}}, "does not fit the columns"),
        ({"columns": {"_meta": "1"}}, "names that begin with _ are ours"),
        ({"columns": {"x": "null"}}, "has no type"),
        ({"cast": {"number": "integral"}}, "does not parse"),
        ({"filter": "number + 1"}, "expected a condition"),
        ({"select": ["item", "price"]}, "no column 'price'"),
        ({"rename": {"note": "number"}}, "two columns 'number'"),
        ({"flatten": "note"}, "only a struct can be flattened"),
        ({"join": "nothing", "by": "item"}, "no reference or table 'nothing'"),
        ({"python": "nowhere_to_be_found:step"}, "cannot be imported"),
        ({"python": "shop_steps:nothing"}, "has no function 'nothing'"),
        ({"python": "shop_steps:loses"}, "lost or changed the column _meta"),
        ({"python": "shop_steps:gives_nothing"}, "expected a DataFrame"),
        ({"python": "shop_steps:raises"}, r"\(python shop_steps:raises\) raised ZeroDivisionError"),
    ],
)
def test_a_step_that_does_not_fit_is_refused_before_any_row_is_read(
    unchanging: Any, monkeypatch: pytest.MonkeyPatch, step: dict[str, Any], said: str
) -> None:
    steps = module(loses=lambda df: df.select("item"), gives_nothing=lambda df: None, raises=lambda df: 1 / 0)
    monkeypatch.setitem(sys.modules, "shop_steps", steps)
    expecting(unchanging, transform=[step])
    with pytest.raises((ConfigError, StopError), match=said) as raised:
        SilverJob(unchanging.spark, unchanging.config, "silver.orders")
    assert "tables.silver.orders.transform[0] (" in str(raised.value)


@pytest.fixture(scope="module")
def unchanging(new_lake: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return with_bronze(new_lake(tmp_path_factory.mktemp("unchanging")))


def module(**functions: Any) -> types.ModuleType:
    made = types.ModuleType("shop_steps")
    for name, function in functions.items():
        setattr(made, name, function)
    return made
