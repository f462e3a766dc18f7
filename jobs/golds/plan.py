"""Spark's plan of a query, from Python: the query over empty stand-ins of its tables, optimized, before anything runs.

Optimized, for then subqueries are joins, and what a column is made of is said in one expression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

_MARKER = "headrace source "


def stand_in(spark: SparkSession, name: str, schema: T.StructType) -> DataFrame:
    """No rows, of a table's columns; its leaf in a plan can be told by its marker."""
    marker = _MARKER + name.replace(".", " ")  # a dot in a column's name would have to be quoted
    marked = T.StructType([*schema.fields, T.StructField(marker, T.NullType())])
    return spark.createDataFrame(spark.sparkContext.emptyRDD(), marked).drop(marker)


def optimized(rows: DataFrame) -> Any:
    """The plan of a query over stand-ins."""
    return rows._jdf.queryExecution().optimizedPlan()


def source_of(node: Any) -> str | None:
    """The table that a leaf stands for; None for other nodes."""
    if node.nodeName() not in ("LogicalRDD", "ExternalRDD"):
        return None
    markers = [one.name() for one in each(node.output()) if one.name().startswith(_MARKER)]
    return markers[0].removeprefix(_MARKER).replace(" ", ".") if markers else None


def is_attribute(expression: Any) -> bool:
    return bool(expression.getClass().getSimpleName() == "AttributeReference")


def unaliased(expression: Any) -> Any:
    while expression.nodeName() == "Alias":
        expression = expression.child()
    return expression


def conjuncts(expression: Any) -> Iterator[Any]:
    """What has to hold together: the parts of ANDs."""
    if expression.nodeName() == "And":
        yield from conjuncts(expression.left())
        yield from conjuncts(expression.right())
    else:
        yield expression


def nodes(node: Any) -> Iterator[Any]:
    """A node and all below it, in subqueries too."""
    yield node
    for subquery in each(node.subqueries()):
        yield from nodes(subquery)
    for child in each(node.children()):
        yield from nodes(child)


def each(sequence: Any) -> Iterator[Any]:
    """A Scala sequence's elements."""
    for at in range(sequence.size()):
        yield sequence.apply(at)


def definitions_of(expressions: Any) -> dict[int, Any]:
    """What columns are made of, by id: those that one row's values decide."""
    return {id_of(one): one for one in each(expressions) if _is_of_a_row(one)}


def _is_of_a_row(expression: Any) -> bool:
    """Whether it says the same for the same row: no aggregate, no subquery, nothing random."""
    kind = expression.getClass().getSimpleName()
    if kind == "AggregateExpression" or kind.endswith("Subquery") or not expression.deterministic():
        return False
    return all(_is_of_a_row(child) for child in each(expression.children()))


def id_of(attribute: Any) -> int:
    """What tells an attribute from another of the same name."""
    return int(attribute.exprId().id())


def ids_of(attributes: Any) -> set[int]:
    return {id_of(one) for one in each(attributes) if is_attribute(one)}


@dataclass(frozen=True)
class Join:
    """A join node, with its condition taken apart."""

    kind: str
    equal: Sequence[tuple[Any, Any]]
    """Attributes of the left and the right side."""
    has_more: bool
    """Other conditions, that may narrow it further."""

    @classmethod
    def of(cls, node: Any) -> Join:
        condition = node.condition()
        left = {id_of(one) for one in each(node.left().output())}
        equal, others = [], 0
        for one in conjuncts(condition.get()) if condition.isDefined() else ():
            sides = list(each(one.children()))
            if one.nodeName() in ("EqualTo", "EqualNullSafe") and all(is_attribute(side) for side in sides):
                a, b = sides
                equal.append((a, b) if id_of(a) in left else (b, a))
            else:
                others += 1
        return cls(node.joinType().toString(), equal, others > 0)
