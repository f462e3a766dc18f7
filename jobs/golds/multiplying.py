"""Joins of a query that surely multiply rows, as its plan says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame

from jobs.golds.plan import (
    Join,
    conjuncts,
    definitions_of,
    each,
    id_of,
    ids_of,
    is_attribute,
    nodes,
    optimized,
    source_of,
    unaliased,
)


@dataclass(frozen=True)
class Multiplying:
    """A join neither side of which has one row only for what is joined on."""

    columns: Sequence[str]
    sources: Sequence[str]


IsUnique = Callable[[str, Sequence[str]], bool | None]


def multiplying(rows: DataFrame, is_unique: IsUnique) -> list[Multiplying]:
    """The joins of a query over stand-ins that surely multiply rows: neither side is unique by the columns that are equal.

    ``is_unique(source, columns)`` says whether a table has one row at most for each value; None: not known.
    """
    out = []
    for node in nodes(optimized(rows)):
        if node.nodeName() != "Join":
            continue
        join = Join.of(node)
        if join.kind not in ("Inner", "Cross", "LeftOuter", "RightOuter", "FullOuter") or join.has_more:
            continue
        sides = [{id_of(pair[at]) for pair in join.equal} for at in (0, 1)]
        if all(_unique(child, ids, is_unique) is False for child, ids in zip((node.left(), node.right()), sides, strict=True)):
            sources = sorted({name for one in nodes(node) if (name := source_of(one)) is not None})
            out.append(Multiplying([pair[0].name() for pair in join.equal], sources))
    return out


def _unique(node: Any, ids: set[int], is_unique: IsUnique) -> bool | None:
    kind = node.nodeName()
    source = source_of(node)
    if source is not None:
        names = [one.name() for one in each(node.output()) if id_of(one) in ids]
        return is_unique(source, names)
    if kind == "Project":
        definitions = definitions_of(node.projectList())
        below = [unaliased(definitions[one]) for one in ids if one in definitions]
        if not all(is_attribute(one) for one in below):
            return None
        return _unique(node.child(), {id_of(one) for one in below}, is_unique)
    if kind == "Filter":
        found = _unique(node.child(), ids, is_unique)
        only_nulls = all(one.nodeName() == "IsNotNull" for one in conjuncts(node.condition()))
        return found if found or only_nulls else None  # what is left of a table may be unique
    if kind == "Aggregate":
        definitions = definitions_of(node.aggregateExpressions())
        of_groups = [unaliased(definitions[one]) for one in ids if one in definitions]
        covered = {id_of(one) for one in of_groups if is_attribute(one)}
        return ids_of(node.groupingExpressions()) <= covered
    if kind in ("Sort", "SubqueryAlias", "RepartitionByExpression", "Repartition"):
        return _unique(node.child(), ids, is_unique)
    if kind == "Join" and node.joinType().toString() in ("LeftSemi", "LeftAnti"):
        return True if _unique(node.left(), ids, is_unique) else None
    return None
