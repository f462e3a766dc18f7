"""By which keys of its sources a query's result can be recomputed, as its plan says: no promise of its author is trusted.

A source is *keyed* if every row of the result depends only on those of its rows that have the row's keys. What cannot be shown
is taken as not so: it costs a full refresh when that source changes, never a wrong row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import DataFrame

from jobs.golds.plan import Join, definitions_of, each, id_of, ids_of, is_attribute, optimized, source_of, unaliased

_PASSING = {"Filter", "Sort", "RepartitionByExpression", "Repartition", "SubqueryAlias", "Generate", "ResolvedHint"}
_PASSING |= {"BatchEvalPython", "ArrowEvalPython"}
_SESSION = "spark.sessionWindow"
_KEEPS = {"LeftOuter": (True, False), "RightOuter": (False, True), "FullOuter": (False, False)}
"""Sides of a join that may hold the keys: rows of the other side without a match would have none."""
_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""


@dataclass(frozen=True)
class _Key:
    """An expression over a node's output; ``parts`` replace what it refers to, by id."""

    expression: Any
    parts: Mapping[int, _Key] = field(default_factory=dict)

    def refers_to(self) -> set[int]:
        if self.parts:
            return {one for part in self.parts.values() for one in part.refers_to()}
        return ids_of(self.expression.references().toSeq())

    def through(self, definitions: Mapping[int, Any]) -> _Key | None:
        """The same, over the output of the node below; None where that cannot say it."""
        if self.parts:
            below = {id_: part.through(definitions) for id_, part in self.parts.items()}
            return None if None in below.values() else _Key(self.expression, below)  # type: ignore[arg-type]
        if is_attribute(self.expression):
            found = definitions.get(id_of(self.expression))
            return None if found is None else _key(found)
        return self

    def text(self) -> str:
        """As SQL over a source's columns."""
        if is_attribute(self.expression):
            return f"`{self.expression.name()}`"
        out: str = self.expression.sql()
        for one in each(self.expression.references().toSeq()):
            out = _replaced(out, one.sql(), f"({self.parts[id_of(one)].text()})")
        return out


def _replaced(text: str, name: str, part: str) -> str:
    """SQL with a column's name replaced, as a whole name and outside of quotes."""
    whole_name = re.compile(rf"{_QUOTED}|(?<![\w.`]){re.escape(name)}(?![\w.(`])")
    return whole_name.sub(lambda found: found[0] if found[0][0] in "'\"" else part, text)


def _key(expression: Any) -> _Key:
    expression = unaliased(expression)
    if is_attribute(expression):
        return _Key(expression)
    return _Key(expression, {id_of(one): _Key(one) for one in each(expression.references().toSeq())})


def keyed(rows: DataFrame, keys: Sequence[str]) -> dict[str, list[str] | None]:
    """By source of a query over stand-ins: its keys as SQL over its columns; None where it cannot be recomputed by them.

    Raises KeyError for a key that the query has no column of.
    """
    plan = optimized(rows)
    output = {one.name(): one for one in each(plan.output())}
    found: dict[str, list[str] | None] = {}
    _descend(plan, [_key(output[name]) for name in keys], found)
    return found


def _descend(node: Any, keys: Sequence[_Key] | None, found: dict[str, list[str] | None]) -> None:
    for subquery in each(node.subqueries()):
        _descend(subquery, None, found)
    source = source_of(node)
    if source is not None:
        texts = None if keys is None else [key.text() for key in keys]
        found[source] = texts if source not in found or found[source] == texts else None
        return
    children = list(each(node.children()))
    for child, below in zip(children, _below(node, children, keys), strict=True):
        _descend(child, below, found)


def _below(node: Any, children: Sequence[Any], keys: Sequence[_Key] | None) -> Sequence[Sequence[_Key] | None]:
    """The keys of each child; None for one that has to be read as a whole."""
    nothing = [None] * len(children)
    if keys is None:
        return nothing
    kind = node.nodeName()
    if kind == "Project":
        return [_through(keys, definitions_of(node.projectList()))]
    if kind == "Aggregate":
        return [_of_groups(node, keys)]
    if kind == "Window":
        parts = ids_of(node.partitionSpec())
        return [keys if all(key.refers_to() <= parts for key in keys) else None]
    if kind == "Join":
        return _of_join(node, keys)
    if kind == "Union":
        outputs = [list(each(child.output())) for child in children]
        ids = [id_of(one) for one in each(node.output())]
        return [_through(keys, dict(zip(ids, output, strict=True))) for output in outputs]
    if kind == "Expand":
        return [_of_expand(node, keys)]
    if kind in _PASSING:
        there = {id_of(one): one for one in each(children[0].output())}
        return [_through(keys, there)]
    return nothing


def _through(keys: Sequence[_Key], definitions: Mapping[int, Any]) -> list[_Key] | None:
    below = [key.through(definitions) for key in keys]
    return None if None in below else below  # type: ignore[return-value]


def _of_groups(node: Any, keys: Sequence[_Key]) -> list[_Key] | None:
    """Whole groups stay together; a session is no group of its rows alone, it depends on its neighbours."""
    groups = [one for one in each(node.groupingExpressions()) if is_attribute(one)]
    ids = {id_of(one) for one in groups if not one.metadata().contains(_SESSION)}
    below = _through(keys, definitions_of(node.aggregateExpressions()))
    return below if below is not None and all(key.refers_to() <= ids for key in below) else None


def _of_expand(node: Any, keys: Sequence[_Key]) -> list[_Key] | None:
    """Rows are repeated with some columns set to null: keys have to be the same in each repeat."""
    projections = [list(each(one)) for one in each(node.projections())]
    same = {
        id_of(attribute): projections[0][at]
        for at, attribute in enumerate(each(node.output()))
        if all(is_attribute(p[at]) and id_of(p[at]) == id_of(projections[0][at]) for p in projections)
    }
    return _through(keys, same)


def _of_join(node: Any, keys: Sequence[_Key]) -> list[Sequence[_Key] | None]:
    join = Join.of(node)
    sides = [{id_of(one): one for one in each(side.output())} for side in (node.left(), node.right())]
    holds = _KEEPS.get(join.kind, (True, join.kind in ("Inner", "Cross")))
    out: list[Sequence[_Key] | None] = []
    for here in (0, 1):
        other = {id_of(pair[1 - here]): pair[here] for pair in join.equal}
        below = _through(keys, sides[here]) if holds[here] else None
        if below is None and (holds[1 - here] or join.kind in ("Inner", "Cross")):  # by columns equal to the other side's
            below = _through(keys, (sides[here] if holds[here] else {}) | other)
        out.append(below)
    return out
