"""Avro schema text → a tree of types, with bounds on size and depth.

The tree keeps everything that canonical text and compatibility need and nothing that a parser library would lose
(documentation, order of extra properties, aliases with their namespace). A type that is used before or inside itself is
the same ``Node`` object, so a tree may hold cycles; walk it with a memory of what was visited.

``strict`` is for schemas that are new: names must be valid and every default must fit. Schemas that are already
registered, by whatever registry, are read leniently: they cannot be refused any more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.errors import SchemaError

SCHEMA_BYTES_MAX: Final = 1_000_000
# 128 levels of JSON are 42 records inside each other. Every walker of the tree recurses at most three frames per level,
# which stays below Python's limit of 1,000 frames; 1,000 levels are refused before any parser sees them.
DEPTH_MAX: Final = 128

PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NAMED: Final = frozenset({"record", "error", "enum", "fixed"})
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_TYPE_KEYS: Final = frozenset({"type", "name", "namespace", "doc", "fields", "items", "values", "symbols", "size", "aliases"})
_FIELD_KEYS: Final = frozenset({"name", "type", "doc", "default", "order", "aliases"})

_INT_TIMES: Final = frozenset({"date", "time-millis"})
_LONG_TIMES: Final = frozenset(
    {"time-micros"} | {f"{kind}-{unit}" for kind in ("timestamp", "local-timestamp") for unit in ("millis", "micros", "nanos")}
)

NO_DEFAULT: Final = object()


@dataclass(slots=True, eq=False)
class Node:
    """One Avro type. ``kind`` is its Avro type name; ``name`` is the full name of a named type, else empty."""

    kind: str
    name: str = ""
    doc: str | None = None
    aliases: tuple[str, ...] = ()
    fields: list[FieldNode] = field(default_factory=list)
    symbols: tuple[str, ...] = ()
    enum_default: str | None = None
    size: int = 0
    inner: Node | None = None  # items of an array, values of a map
    branches: list[Node] = field(default_factory=list)
    props: dict[str, Any] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def short_name(self) -> str:
        return self.name.rpartition(".")[2]

    def decimal(self) -> tuple[int, int] | None:
        """(precision, scale) of a valid decimal; Avro ignores an invalid logical type, and so does this."""
        if self.props.get("logicalType") != "decimal" or self.kind not in ("bytes", "fixed"):
            return None
        precision, scale = self.props.get("precision"), self.props.get("scale", 0)
        if type(precision) is int and type(scale) is int and 0 <= scale <= precision and precision > 0:
            return precision, scale
        return None

    def time_kind(self) -> str | None:
        """``"timestamp-millis"`` and its like: what the number counts, or None for a plain number."""
        logical = self.props.get("logicalType")
        allowed = _INT_TIMES if self.kind == "int" else _LONG_TIMES if self.kind == "long" else frozenset()
        return logical if isinstance(logical, str) and logical in allowed else None


@dataclass(slots=True, eq=False)
class FieldNode:
    """One field of a record. ``default`` is ``NO_DEFAULT`` where there is none (null is a default)."""

    name: str
    type: Node
    doc: str | None = None
    default: Any = NO_DEFAULT
    order: str | None = None
    aliases: tuple[str, ...] = ()
    props: dict[str, Any] = field(default_factory=dict)

    @property
    def has_default(self) -> bool:
        return self.default is not NO_DEFAULT


@dataclass(frozen=True, slots=True)
class Tree:
    """A parsed schema: its root, and the names that other schemas gave it (references)."""

    root: Node
    external: Mapping[str, Node]


def load_json(text: str, depth_max: int = DEPTH_MAX) -> Any:
    """JSON of bounded depth. Raises ``SchemaError``; never recurses on what it has not measured."""
    depth = 0
    for token in _BRACKETS.finditer(text):
        first = text[token.start()]
        if first in "[{":
            depth += 1
            if depth > depth_max:
                raise SchemaError(f"the schema is nested more than {depth_max} levels deep: flatten it")
        elif first in "]}":
            depth -= 1
    try:
        text.encode()
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"the schema is not JSON: {error}") from error


def parse_tree(text: str, references: Sequence[str] = (), *, strict: bool = True) -> Tree:
    """The tree of ``text``. ``references`` are the schemas it uses, those without further references first.

    Raises ``SchemaError`` saying what is wrong and where.
    """
    if len(text) > SCHEMA_BYTES_MAX:
        raise SchemaError(f"the schema has {len(text):,} characters, the limit is {SCHEMA_BYTES_MAX:,}: make it smaller")
    parser = _Parser(strict=False)
    for reference in references:
        parser.parse(_document(reference), "", "reference")
    external = dict(parser.names)
    parser.strict = strict
    return Tree(parser.parse(_document(text), "", ""), external)


def _document(text: str) -> Any:
    if text.strip() in PRIMITIVES:
        return text.strip()  # Java's parser takes a bare  string  for  "string", and so do clients
    return load_json(text)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class _Parser:
    """Recursive descent over JSON. ``where`` is the path shown in errors."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.names: dict[str, Node] = {}

    def parse(self, source: Any, space: str, where: str) -> Node:
        if isinstance(source, str):
            return self._by_name(source, space, where)
        if isinstance(source, list):
            return self._union(source, space, where)
        if not isinstance(source, dict):
            raise SchemaError(f"{where or '/'}: a type is a name, a list or an object, not {_json_type(source)}")
        kind = source.get("type")
        if isinstance(kind, dict | list):
            raise SchemaError(f"{where or '/'}: \"type\" must name a type here, not hold another one")
        if not isinstance(kind, str):
            raise SchemaError(f'{where or "/"}: the type is missing ("type" must be a text)')
        if kind in NAMED:
            return self._named(source, kind, space, where)
        props = {key: value for key, value in source.items() if key not in _TYPE_KEYS}
        if kind in PRIMITIVES:
            return Node(kind, props=props)
        if kind in ("array", "map"):
            key = "items" if kind == "array" else "values"
            if key not in source:
                raise SchemaError(f'{where or "/"}: {kind} without "{key}"')
            return Node(kind, inner=self.parse(source[key], space, f"{where}/{key}"), props=props)
        return self._by_name(kind, space, where)

    def _by_name(self, name: str, space: str, where: str) -> Node:
        if name in PRIMITIVES:
            return Node(name)
        # Java falls back to a type without a namespace, and writes references to such a type in this way.
        node = self.names.get(full_name(name, space)) or self.names.get(name)
        if node is None:
            raise SchemaError(f"{where or '/'}: {full_name(name, space)!r} is not defined before it is used")
        return node

    def _union(self, source: list[Any], space: str, where: str) -> Node:
        node = Node("union", branches=[self.parse(branch, space, f"{where}/{i}") for i, branch in enumerate(source)])
        seen: set[str] = set()
        for i, branch in enumerate(node.branches):
            if branch.kind == "union":
                raise SchemaError(f"{where}/{i}: a union may not hold a union directly")
            identity = branch.name or branch.kind
            if identity in seen:
                raise SchemaError(f"{where}/{i}: {identity!r} is twice in one union")
            seen.add(identity)
        return node

    def _named(self, source: dict[str, Any], kind: str, space: str, where: str) -> Node:
        name = source.get("name")
        if not isinstance(name, str) or not name:
            raise SchemaError(f"{where or '/'}: {kind} without a name")
        explicit = source.get("namespace")
        full = full_name(name, explicit if isinstance(explicit, str) else space)
        if full in self.names:
            raise SchemaError(f"{where or '/'}: the name {full!r} is defined twice")
        if full in PRIMITIVES:
            raise SchemaError(f"{where or '/'}: a type may not be named {full!r}")
        self._check_name(full, where, dotted=True)
        reserved = _TYPE_KEYS | {"default"} if kind == "enum" else _TYPE_KEYS
        node = Node(kind, name=full, doc=_text(source, "doc"), props={k: v for k, v in source.items() if k not in reserved})
        node.aliases = tuple(full_name(alias, node.namespace) for alias in _texts(source, "aliases", where))
        self.names[full] = node
        if kind == "enum":
            self._enum(node, source, where)
        elif kind == "fixed":
            size = source.get("size")
            if type(size) is not int or size < 0:
                raise SchemaError(f"{where or '/'}: fixed {full!r} needs a size that is a whole number, 0 or more")
            node.size = size
        else:
            self._fields(node, source, where)
        return node

    def _enum(self, node: Node, source: dict[str, Any], where: str) -> None:
        symbols = _texts(source, "symbols", where, required=True)
        if len(set(symbols)) != len(symbols):
            raise SchemaError(f"{where or '/'}: enum {node.name!r} has a symbol twice")
        for symbol in symbols:
            self._check_name(symbol, f"{where}/symbols", dotted=False)
        node.symbols = symbols
        node.enum_default = _text(source, "default")
        if self.strict and node.enum_default is not None and node.enum_default not in symbols:
            raise SchemaError(f"{where or '/'}: the default {node.enum_default!r} is not a symbol of enum {node.name!r}")

    def _fields(self, node: Node, source: dict[str, Any], where: str) -> None:
        fields = source.get("fields")
        if not isinstance(fields, list):
            raise SchemaError(f'{where or "/"}: record {node.name!r} without a list of "fields"')
        seen: set[str] = set()
        for i, one in enumerate(fields):
            place = f"{where}/fields/{i}"
            if not isinstance(one, dict) or not isinstance(one.get("name"), str) or "type" not in one:
                raise SchemaError(f'{place}: a field is an object with "name" and "type"')
            name: str = one["name"]
            if name in seen:
                raise SchemaError(f"{place}: the field {name!r} is twice in record {node.name!r}")
            seen.add(name)
            self._check_name(name, place, dotted=False)
            kind = self.parse(one["type"], node.namespace, f"{place}/type")
            order = _text(one, "order")
            if order is not None and order.lower() not in ("ascending", "descending", "ignore"):
                raise SchemaError(f"{place}: the order {order!r} is not ascending, descending or ignore")
            node.fields.append(
                FieldNode(
                    name=name,
                    type=kind,
                    doc=_text(one, "doc"),
                    default=one.get("default", NO_DEFAULT),
                    order=order.lower() if order else None,
                    aliases=_texts(one, "aliases", place),
                    props={k: v for k, v in one.items() if k not in _FIELD_KEYS},
                )
            )

    def _check_name(self, name: str, where: str, *, dotted: bool) -> None:
        parts = name.split(".") if dotted else [name]
        if self.strict and not all(_NAME.match(part) for part in parts):
            raise SchemaError(f"{where or '/'}: {name!r} is not a name (letters, digits and _, not starting with a digit)")


def full_name(name: str, space: str) -> str:
    """``name`` qualified by ``space``, unless it brings its own namespace."""
    return name if "." in name or not space else f"{space}.{name}"


def _text(source: dict[str, Any], key: str) -> str | None:
    value = source.get(key)
    return value if isinstance(value, str) else None


def _texts(source: dict[str, Any], key: str, where: str, *, required: bool = False) -> tuple[str, ...]:
    value = source.get(key)
    if value is None and not required:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SchemaError(f'{where or "/"}: "{key}" must be a list of texts')
    return tuple(value)


def _json_type(value: Any) -> str:
    return {bool: "true or false", int: "a number", float: "a number", type(None): "null"}.get(type(value), "that")
