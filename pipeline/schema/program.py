"""A schema as the program that the compiled encoder runs (pipeline/compiled/encode.c): its types as nested tuples.

A type that it does not know becomes a call of the generated Python function for that type. A recursive schema has no program:
it is Python's alone. What references unfold to is bounded by type_parser.py.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from pipeline.compiled import core
from pipeline.schema.avro_types import (
    INT_MAX,
    INT_MIN,
    LONG_MAX,
    LONG_MIN,
    Array,
    AvroType,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    walk,
)
from pipeline.schema.encode import is_raw
from pipeline.schema.generate import Generator
from pipeline.schema.interpret import real_number, whole_number
from pipeline.schema.logical import INT_RANGES, converter
from pipeline.schema.value_schema import ValueSchema
from pipeline.schema.varint import zigzag

Node = tuple[Any, ...]


class Kind(IntEnum):
    """In the order of encode.c's ``enum Kind``."""

    NULLS = 0
    BOOLEAN = 1
    INTEGER = 2
    REAL32 = 3
    REAL64 = 4
    STRING = 5
    BYTES = 6
    FIXED = 7
    ENUM = 8
    OPTIONAL = 9
    RECORD = 10
    ARRAY = 11
    MAP = 12
    CALL = 13


_KINDS: Mapping[str, Kind] = {
    "null": Kind.NULLS,
    "boolean": Kind.BOOLEAN,
    "int": Kind.INTEGER,
    "long": Kind.INTEGER,
    "float": Kind.REAL32,
    "double": Kind.REAL64,
    "string": Kind.STRING,
    "bytes": Kind.BYTES,
}
_RANGES = {"int": (INT_MIN, INT_MAX), "long": (LONG_MIN, LONG_MAX)}


def compiled_encoder(schema: ValueSchema) -> core.Encoder | None:
    """The compiled encoder of a schema's entries; None where there is none."""
    if core is None or any(isinstance(avro, Record) and avro.recursive for avro in walk(schema.type)):
        return None
    return core.Encoder(_type(schema.type), is_raw(schema.type))


def _type(avro: AvroType) -> Node:
    if isinstance(avro, Primitive):
        return _primitive(avro)
    if isinstance(avro, Fixed):
        return _node(Kind.FIXED, converter(avro), always=True, size=avro.size_bytes)
    if isinstance(avro, Enum):
        return _node(Kind.ENUM, {symbol: zigzag(index) for index, symbol in enumerate(avro.symbols)})
    if isinstance(avro, Array):
        return _node(Kind.ARRAY, children=(_type(avro.items),))
    if isinstance(avro, Map):
        return _node(Kind.MAP, children=(_type(avro.values),))
    if isinstance(avro, Record):
        names = tuple(sys.intern(one.name) for one in avro.fields)
        return _node(Kind.RECORD, size=len(names), names=names, children=tuple(_type(one.type) for one in avro.fields))
    return _union(avro)


def _union(avro: Union) -> Node:
    null = avro.null_index
    if len(avro.branches) == 2 and null >= 0:
        other = _type(avro.branches[1 - null])
        return _node(Kind.OPTIONAL, children=(other,), indexes=(zigzag(null)[0], zigzag(1 - null)[0]))
    generator = Generator(avro)
    return _node(Kind.CALL, generator.compile(generator.function(avro)))


def _primitive(avro: Primitive) -> Node:
    kind = _KINDS[avro.name]
    if kind is Kind.INTEGER:
        if avro.logical is not None:
            return _node(kind, converter(avro), limits=INT_RANGES[avro.logical.name])
        return _node(kind, whole_number, limits=_RANGES[avro.name])
    if kind in (Kind.REAL32, Kind.REAL64):
        return _node(kind, real_number)
    return _node(kind, converter(avro), always=True)


def _node(
    kind: Kind,
    function: Any = None,
    *,
    always: bool = False,
    limits: tuple[int, int] = (0, 0),
    size: int = 0,
    names: tuple[str, ...] = (),
    children: tuple[Node, ...] = (),
    indexes: tuple[int, int] = (0, 0),
) -> Node:
    return (int(kind), function, always, *limits, size, *indexes, names, children)
