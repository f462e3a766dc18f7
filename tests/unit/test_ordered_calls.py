"""Calling a function record by record: order checked, state kept, failures named; with rows as Spark gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest
from pyspark.sql import Row
from pyspark.sql import types as T

from jobs.ordered_calls import Caller, CallFailed, Function, failed_call, load_function
from pipeline.config import Config
from pipeline.errors import ConfigError, HandlerError, HeadraceError, InvariantError

Token = tuple[int, int, int]


class Group:
    """One key's state, and the part of Spark's handle that gives it."""

    def __init__(self) -> None:
        self.kept: tuple[Any, ...] | None = None

    def getValueState(self, _name: str, _schema: T.StructType) -> Group:
        return self

    def get(self) -> tuple[Any, ...] | None:
        return self.kept

    def update(self, kept: tuple[Any, ...]) -> None:
        self.kept = kept


def total(key: str, record: Mapping[str, Any], state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    state["total"] = (state["total"] or 0) + record["number"]
    yield {"total": state["total"]}


def call(function: Function, group: Group, *rows: tuple[Token, int]) -> list[dict[str, Any]]:
    """The function's output for one key's rows of one micro-batch."""
    given = (
        Row(key="apple", order=dict(zip(("generation", "offset", "index"), token, strict=True)), record={"number": number})
        for token, number in rows
    )
    caller = Caller(function, T.StructType().add("total", "long"), ["total"])
    caller.init(cast(Any, group))
    return [row.asDict() for row in caller.handleInputRows(("apple",), given, None)]


def failure(function: Function, group: Group, *rows: tuple[Token, int]) -> HeadraceError:
    with pytest.raises(CallFailed) as failed:
        call(function, group, *rows)
    found = failed_call("silver.totals", f"PythonException: Traceback …\n{failed.value}\n at org.apache.spark…")
    assert found is not None
    return found


def test_state_goes_from_record_to_record_within_a_micro_batch_and_to_the_next() -> None:
    group = Group()
    assert [row["total"] for row in call(total, group, ((0, 1, 0), 1), ((0, 1, 1), 2), ((0, 2, 0), 3))] == [1, 3, 6]
    rows = call(total, group, ((1, 0, 0), 4))  # a child's offsets begin at 0 again
    assert rows == [{"total": 10, "_key": "apple", "_generation": 1, "_offset": 0, "_index": 0, "_number": 0}]
    assert group.kept == (10, 1, 0, 0)


@pytest.mark.parametrize("again", [(0, 2, 0), (0, 1, 9)])
def test_a_record_that_does_not_come_after_the_keys_last_one_is_an_error(again: Token) -> None:
    group = Group()
    call(total, group, ((0, 2, 0), 1))
    before = group.kept
    found = failure(total, group, (again, 1))
    assert isinstance(found, InvariantError)
    assert f"silver.totals: at the record {again} of key 'apple'" in str(found)
    assert group.kept == before


def test_a_function_that_raises_is_named_by_type_and_place_without_the_record() -> None:
    def bad(_key: str, record: Mapping[str, Any], _state: dict[str, Any]) -> None:
        raise KeyError(f"secret {record}")

    group = Group()
    found = failure(bad, group, ((0, 1, 0), 42))
    assert isinstance(found, HandlerError)
    assert "of key 'apple' the function raised KeyError (test_ordered_calls.py, line" in str(found)
    assert "42" not in str(found)
    assert group.kept is None


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda _k, _r, state: state.update(count=1), "put count into the state"),
        (lambda *_: [{"totals": 1}], "gave totals, which `ordered.output` does not name"),
        (lambda *_: [(1,)], "gave a tuple where a dict is expected"),
    ],
)
def test_what_the_function_gives_has_to_be_declared(function: Function, said: str) -> None:
    assert said in str(failure(function, Group(), ((0, 1, 0), 1)))


def test_other_errors_of_spark_are_not_ours_to_explain() -> None:
    assert failed_call("silver.totals", "PythonException: something else") is None


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (None, "name one"),
        ("nowhere:f", "there is no nowhere:f"),
        ("json:nothing", "there is no"),
        ("json:__name__", "not a function"),
    ],
)
def test_a_function_that_cannot_be_had_is_refused(named: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_function("silver.totals", named)


def test_an_ordered_table_without_an_order_to_follow_is_refused() -> None:
    stream = {"name": "s", "schema": "s.avsc", "ordering": "salted"}
    bronze, silver = {"name": "bronze.b", "from": "s"}, {"name": "silver.t", "from": "bronze.b"}
    tables = {"bronze.b": bronze, "silver.t": silver | {"ordered": {"state": "a int", "output": "b int"}}}
    with pytest.raises(ValueError, match="its keys have no order"):
        Config.model_validate({"streams": {"s": stream}, "tables": tables})
    assert Config.model_validate({"streams": {"s": stream | {"ordering": "strict"}}, "tables": tables})


@pytest.mark.parametrize(
    ("table", "other", "said"),
    [
        ("silver.t", {"merge": {"keys": ["a"]}}, "merge has no place"),
        ("silver.t", {"ordered": {"state": "a int", "output": "b int", "function": "no colon"}}, "expected module:function"),
        ("bronze.t", {}, "only a silver table"),
    ],
)
def test_an_ordered_table_is_checked_when_it_is_loaded(table: str, other: dict[str, Any], said: str) -> None:
    declared = {"name": table, "from": "s", "ordered": {"state": "a int", "output": "b int"}} | other
    with pytest.raises(ValueError, match=said):
        Config.model_validate({"tables": {table: declared}})
