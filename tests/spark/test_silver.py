"""Silver: the newest row of each key, whatever order the records arrive in."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from jobs import tables
from jobs.audit import audit
from jobs.bronze import BronzeJob
from jobs.silver import SilverJob
from pipeline.errors import ConfigError, InvariantError, TableError
from pipeline.model.stamp import END_HEADER

MakeLake = Callable[..., Any]
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def shop(lake: MakeLake) -> Any:
    """A lake whose bronze table is there and empty; ``arrive`` appends rows as bronze would."""
    return with_bronze(lake())


def with_bronze(shop: Any) -> Any:
    BronzeJob(shop.spark, shop.config, "bronze.orders").close()
    return shop


def arrive(shop: Any, *rows: tuple[tuple[int, int, int], str | None, int | None, str | None]) -> None:
    """Append (order token, item, number, note) to bronze in one commit; a number of None is a tombstone."""
    path = tables.table_path(shop.config, "bronze.orders")
    schema = shop.spark.read.format("delta").load(path).schema
    data = [
        {
            "item": None if number is None else item, "number": number, "note": note,
            "_rejected": None, "_deleted": number is None,
            "_meta": {"key": item, "order": dict(zip(("generation", "offset", "index"), order, strict=True)), "ingested_at": AT},
        }
        for order, item, number, note in rows
    ]  # fmt: skip
    shop.spark.createDataFrame(data, schema).write.format("delta").mode("append").save(path)


def state(shop: Any) -> dict[str, int]:
    return {row["item"]: row["number"] for row in shop.read("silver.orders").collect()}


def test_the_newest_row_wins_in_every_order_of_arrival(shop: Any) -> None:
    history = [((0, 5, 0), 1), ((0, 5, 3), 2), ((1, 2, 0), 3)]
    arrivals = dict(enumerate(itertools.permutations(history)))  # one item each
    for arriving in range(3):
        rows = [(order, f"item-{n}", number, None) for n, (order, number) in ((n, a[arriving]) for n, a in arrivals.items())]
        arrive(shop, *rows)
        shop.run("silver.orders")
    assert state(shop) == {f"item-{n}": 3 for n in arrivals}


def test_the_newest_row_wins_inside_one_micro_batch(shop: Any) -> None:
    history = [((0, 5, 0), 1), ((0, 5, 3), 2), ((1, 2, 0), 3)]
    arrivals = list(enumerate(itertools.permutations(history)))
    arrive(shop, *((order, f"item-{n}", number, None) for n, arrival in arrivals for order, number in arrival))
    shop.run("silver.orders")
    assert state(shop) == {f"item-{n}": 3 for n, _ in arrivals}


def test_a_deleted_row_stays_deleted_when_an_older_insert_comes_late_and_comes_back_with_a_newer_one(shop: Any) -> None:
    arrive(shop, ((0, 5, 0), "apple", None, None))
    shop.run("silver.orders")
    arrive(shop, ((0, 4, 0), "apple", 1, None))
    shop.run("silver.orders")
    assert state(shop) == {}
    arrive(shop, ((0, 6, 0), "apple", 2, None))
    shop.run("silver.orders")
    assert state(shop) == {"apple": 2}


def test_delete_when_hides_the_row_and_own_columns_are_hidden(lake: MakeLake) -> None:
    merge = {"keys": ["item"], "delete_when": "note = 'gone'"}
    shop = with_bronze(lake(tables={"silver.orders": {"from": "bronze.orders", "merge": merge}}))
    arrive(shop, ((0, 1, 0), "apple", 1, None), ((0, 2, 0), "pear", 2, "gone"))
    shop.run("silver.orders")
    assert state(shop) == {"apple": 1}
    assert shop.read("silver.orders").columns == ["item", "number", "note"]


def test_merging_a_micro_batch_twice_changes_nothing(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arrive(shop, ((0, 1, 0), "apple", 1, None))
    shop.run("silver.orders")
    arrive(shop, ((0, 2, 0), "apple", 2, None), ((0, 3, 0), "pear", 3, None))
    with monkeypatch.context() as patch:

        def die(_: Any) -> None:
            raise InvariantError("killed by the test after its merge")

        patch.setattr(SilverJob, "_report", die)
        with pytest.raises(InvariantError):
            shop.run("silver.orders")
    shop.run("silver.orders")
    assert state(shop) == {"apple": 2, "pear": 3}
    shutil.rmtree(tables.checkpoint_path(shop.config, "silver.orders"))  # and all of bronze once more
    shop.run("silver.orders")
    assert state(shop) == {"apple": 2, "pear": 3}


def test_ties_of_the_sequence_column_have_one_winner(lake: MakeLake) -> None:
    merge = {"keys": ["item"], "sequence_by": "number"}
    shop = with_bronze(lake(tables={"silver.orders": {"from": "bronze.orders", "merge": merge}}))
    first, second = ((0, 7, 0), 5, "first"), ((0, 8, 0), 5, "second")
    for apple, pear in ((first, second), (second, first)):
        rows = [(order, item, number, note) for item, (order, number, note) in (("apple", apple), ("pear", pear))]
        arrive(shop, *rows, ((0, 9, 0), "apple", 4, "older"))
        shop.run("silver.orders")
    assert {row["item"]: row["note"] for row in shop.read("silver.orders").collect()} == {"apple": "second", "pear": "second"}


def test_records_without_a_key_or_a_sequence_are_dead_letters_of_the_table_once(lake: MakeLake) -> None:
    merge = {"keys": ["item", "note"], "sequence_by": "number"}
    shop = with_bronze(lake(tables={"silver.orders": {"from": "bronze.orders", "merge": merge}}))
    arrive(shop, ((0, 1, 0), "apple", 1, None), ((0, 2, 0), "apple", 2, "x"), ((0, 3, 0), "apple", 3, "y"))
    shop.run("silver.orders")
    arrive(shop, ((0, 4, 0), "apple", 4, None), ((0, 5, 0), "apple", None, None), ((0, 6, 0), "apple", 6, "x"))
    shop.run("silver.orders")
    shutil.rmtree(tables.checkpoint_path(shop.config, "silver.orders"))
    told = shop.run("silver.orders")["silver.orders"]
    assert sorted(row["number"] for row in shop.read("silver.orders").collect()) == [3, 6]
    letters = shop.read("silver.orders", rejected=True).collect()
    found = {row["_rejected"]["record"]: (row["_rejected"]["detail"], row["number"]) for row in letters}
    assert found == {
        "0/1/0": ("the record has no value in note", 1),
        "0/4/0": ("the record has no value in note", 4),
        "0/5/0": ("the record has no value in item, note", None),
    }
    assert len(letters) == told.rejected == 3
    (audited,) = audit(shop.spark, shop.config, "silver.orders")
    assert audited.findings == []


def test_rows_and_settings_of_another_merge_are_not_mixed_and_a_wrong_condition_is_a_sentence(shop: Any) -> None:
    arrive(shop, ((0, 1, 0), "apple", 1, None))
    shop.run("silver.orders")
    for merge, error, said in (
        ({"keys": ["item"], "scd": 2}, TableError, r"scd \(was 1, is 2\)"),
        ({"keys": ["item"], "delete_when": "nothing > 1"}, ConfigError, "delete_when: 'nothing > 1' does not fit the columns"),
        ({"keys": ["item"], "delete_when": "number >"}, ConfigError, "delete_when"),
    ):
        shop.table_options = {"silver.orders": {"from": "bronze.orders", "merge": merge}}
        with pytest.raises(error, match=said):
            shop.run("silver.orders")


def test_rejected_rows_and_end_markers_make_no_silver_rows(lake: MakeLake) -> None:
    shop = lake()
    shop.put(("apple", 1))
    shop.produce(0, b"s0", b"\x00", [(END_HEADER, b"{}")])
    shop.produce(0, b"s0", b"rubbish", [])
    shop.run("bronze.orders", "silver.orders")
    assert state(shop) == {"apple": 1}


@pytest.mark.parametrize(
    ("merge", "said"),
    [({"keys": ["nothing"]}, "no column 'nothing'"), ({"keys": ["item"], "sequence_by": "nothing"}, "no column 'nothing'")],
)
def test_a_merge_over_columns_that_are_not_there_is_refused(lake: MakeLake, merge: dict[str, Any], said: str) -> None:
    shop = with_bronze(lake(tables={"silver.orders": {"from": "bronze.orders", "merge": merge}}))
    with pytest.raises(ConfigError, match=said):
        shop.run("silver.orders")


def test_silver_before_its_bronze_says_what_to_run(lake: MakeLake) -> None:
    with pytest.raises(TableError, match=r"headrace run bronze\.orders"):
        lake().run("silver.orders")
