"""Schema text in the one form that is stored and compared.

``canonical_text`` writes what Java's ``Schema.toString()`` writes: documentation, defaults and extra properties are kept,
white space and the order of known keys are not, names are as short as the enclosing namespace allows. So a schema that a
Confluent registry stored and the same schema given to ours are one text, one id.

``normalized_text`` (the request parameter ``normalize``) goes further: full names, sorted aliases and properties.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from pipeline.schema.avro_tree import FieldNode, Node, Tree


def canonical_text(tree: Tree) -> str:
    """The stored form of a schema; types of referenced schemas stay names."""
    return _dump(_Writer(tree).write(tree.root, ""))


def resolved_text(tree: Tree) -> str:
    """Like ``canonical_text``, with the referenced types written out at their first use."""
    return _dump(_Writer(Tree(tree.root, {})).write(tree.root, ""))


def normalized_text(tree: Tree) -> str:
    """One text for schemas that differ only in how names, aliases and properties are written."""
    return _dump(_Normalizer(tree).write(tree.root, ""))


def _dump(value: Any) -> str:
    """Compact JSON; numbers with a fraction as Java writes them (``1.0E10``)."""
    text = _json(value)
    mark = "float"
    while mark in text:
        mark += "_"
    floats: list[float] = []
    marked = _mark_floats(value, mark, floats)
    if not floats:
        return text
    first, *rest = _json(marked).split(f'"{mark}"')
    return first + "".join(java_double(number) + after for number, after in zip(floats, rest, strict=True))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _mark_floats(value: Any, mark: str, floats: list[float]) -> Any:
    """``value`` with ``mark`` in the place of each float, which go to ``floats`` in their order."""
    if isinstance(value, float):
        floats.append(value)
        return mark
    if isinstance(value, dict):
        return {key: _mark_floats(item, mark, floats) for key, item in value.items()}
    return [_mark_floats(item, mark, floats) for item in value] if isinstance(value, list) else value


def java_double(number: float) -> str:
    """What Java's ``Double.toString`` writes: plain from 0.001 up to 10,000,000, else with an exponent."""
    if number == 0 or 1e-3 <= abs(number) < 1e7:
        return repr(number)
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    point = int(exponent) + len(digits) - 1
    first, rest = digits[0], "".join(map(str, digits[1:])) or "0"
    return f"{'-' if sign else ''}{first}.{rest}E{point}"


class _Writer:
    def __init__(self, tree: Tree) -> None:
        self.written: set[str] = set(tree.external)

    def write(self, node: Node, space: str) -> Any:
        if node.kind == "union":
            return [self.write(branch, space) for branch in node.branches]
        if node.kind in ("array", "map"):
            key = "items" if node.kind == "array" else "values"
            inner = self.write(node.inner, space) if node.inner is not None else None
            return {"type": node.kind, key: inner, **self.props(node.props)}
        if not node.name:
            return {"type": node.kind, **self.props(node.props)} if node.props else node.kind
        if node.name in self.written:
            return self.reference(node, space)
        self.written.add(node.name)
        return self.named(node, space)

    def reference(self, node: Node, space: str) -> str:
        return node.short_name if node.namespace in ("", space) else node.name

    def named(self, node: Node, space: str) -> dict[str, Any]:
        out: dict[str, Any] = {"type": node.kind, "name": node.short_name}
        if node.namespace != space:
            out["namespace"] = node.namespace
        if node.doc is not None:
            out["doc"] = node.doc
        if node.kind == "enum":
            out["symbols"] = list(node.symbols)
            if node.enum_default is not None:
                out["default"] = node.enum_default
        elif node.kind == "fixed":
            out["size"] = node.size
        else:
            out["fields"] = [self.field(field, node.namespace) for field in node.fields]
        out.update(self.props(node.props))
        if node.aliases:
            out["aliases"] = [_shorten(alias, node.namespace) for alias in dict.fromkeys(node.aliases)]
        return out

    def field(self, field: FieldNode, space: str) -> dict[str, Any]:
        out: dict[str, Any] = {"name": field.name, "type": self.write(field.type, space)}
        if field.doc is not None:
            out["doc"] = field.doc
        if field.has_default:
            out["default"] = field.default
        if field.order not in (None, "ascending"):
            out["order"] = field.order
        if field.aliases:
            out["aliases"] = list(dict.fromkeys(field.aliases))
        out.update(self.props(field.props))
        return out

    def props(self, props: dict[str, Any]) -> dict[str, Any]:
        return props


class _Normalizer(_Writer):
    def reference(self, node: Node, space: str) -> str:
        return node.name

    def named(self, node: Node, space: str) -> dict[str, Any]:
        out: dict[str, Any] = {"name": node.name, "type": node.kind}
        if node.kind == "enum":
            out["symbols"] = list(node.symbols)
        elif node.kind == "fixed":
            out["size"] = node.size
        else:
            out["fields"] = [self.field(field, node.namespace) for field in node.fields]
        if node.doc:
            out["doc"] = node.doc
        if node.aliases:
            out["aliases"] = sorted(set(node.aliases))
        if node.enum_default is not None:
            out["default"] = node.enum_default
        return {**out, **self.props(node.props)}

    def field(self, field: FieldNode, space: str) -> dict[str, Any]:
        out = super().field(field, space)
        if field.aliases:
            out["aliases"] = sorted(set(field.aliases))
        out.pop("order", None) if field.order == "ascending" else None
        return out

    def props(self, props: dict[str, Any]) -> dict[str, Any]:
        return {key: _sorted(props[key]) for key in sorted(props)}


def _sorted(value: Any) -> Any:
    recurse: Callable[[Any], Any] = _sorted
    if isinstance(value, dict):
        return {key: recurse(value[key]) for key in sorted(value)}
    return [recurse(item) for item in value] if isinstance(value, list) else value


def _shorten(name: str, space: str) -> str:
    before, _, last = name.rpartition(".")
    return last if before == space else name
