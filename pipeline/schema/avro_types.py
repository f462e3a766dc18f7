"""The types of an Avro schema as values, names resolved: what ``parse_type`` (``type_parser.py``) makes of its JSON.

The encoder, its diagnosing twin and the validating pass are all derived from these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
# How many recursive records may be inside each other in one value, when it is written and when it is read.
RECURSION_MAX = 64
DECIMAL_PRECISION_MAX = 1_000

INT_MIN, INT_MAX = -(1 << 31), (1 << 31) - 1
LONG_MIN, LONG_MAX = -(1 << 63), (1 << 63) - 1

NO_DEFAULT: Any = object()


@dataclass(frozen=True, slots=True)
class Logical:
    """A logical type; ``precision`` and ``scale`` (decimal digits) count for decimals only."""

    name: str
    precision: int = 0
    scale: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Primitive:
    name: str
    logical: Logical | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    name: str
    size_bytes: int
    logical: Logical | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Enum:
    name: str
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    items: AvroType


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    values: AvroType


@dataclass(frozen=True, slots=True, eq=False)
class Union:
    branches: tuple[AvroType, ...]

    @property
    def null_index(self) -> int:
        """Index of the null branch, -1 without one."""
        return next((i for i, b in enumerate(self.branches) if isinstance(b, Primitive) and b.name == "null"), -1)


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    name: str
    type: AvroType
    default_json: Any = NO_DEFAULT

    @property
    def has_default(self) -> bool:
        return self.default_json is not NO_DEFAULT


@dataclass(slots=True, eq=False)
class Record:
    """Not frozen only because a recursive record has to exist before its fields do."""

    name: str
    fields: tuple[Field, ...] = ()
    recursive: bool = field(default=False)


AvroType = Primitive | Fixed | Enum | Array | Map | Union | Record
Named = Record | Enum | Fixed


def type_name(avro: AvroType) -> str:
    """What a person calls the type in a message, and what names a union's branch: a primitive's or a full name."""
    if isinstance(avro, Primitive | Fixed | Enum | Record):
        return avro.name
    return type(avro).__name__.lower()


def children(avro: AvroType) -> tuple[AvroType, ...]:
    """The types directly inside a type."""
    if isinstance(avro, Array):
        return (avro.items,)
    if isinstance(avro, Map):
        return (avro.values,)
    if isinstance(avro, Union):
        return avro.branches
    if isinstance(avro, Record):
        return tuple(f.type for f in avro.fields)
    return ()


def walk(root: AvroType) -> Iterator[AvroType]:
    """Every type reachable from ``root``, each once, ``root`` first; without recursion."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        avro = stack.pop()
        if id(avro) not in seen:
            seen.add(id(avro))
            yield avro
            stack.extend(reversed(children(avro)))
