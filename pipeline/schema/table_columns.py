"""Whether a schema's fields can be the columns of a table: asked when a stream that feeds one is created, not by its first
record. Producers and consumers take more than tables do; a stream without a table may use all of Avro.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import SchemaError
from pipeline.schema.avro_types import Array, AvroType, Fixed, Map, Primitive, Record, Union, type_name, walk
from pipeline.schema.value_schema import ValueSchema, load_schema

# What tables of ours have beside a record's fields.
RESERVED_COLUMNS = frozenset({"_meta", "_rejected", "_deleted"})
DECIMAL_DIGITS_MAX = 38


def load_stream_schema(path: str | Path, tables: Iterable[str]) -> ValueSchema:
    """The schema file of a stream, and that the tables made from the stream can have its columns. Raises SchemaError."""
    schema = load_schema(path)
    for table in tables:
        try:
            check_columns(schema)
        except SchemaError as error:
            raise SchemaError(f"{path}: table {table} is made from this stream, and {error}") from None
    return schema


def check_columns(schema: ValueSchema) -> None:
    """Raises SchemaError with the reason where a table cannot have the schema's fields as its columns."""
    if taken := sorted(RESERVED_COLUMNS.intersection(one.name for one in schema.type.fields)):
        raise SchemaError(f"the fields {', '.join(taken)} have names that tables use themselves: rename them")
    for avro in walk(schema.type):
        _check(avro, avro is schema.type)


def _check(avro: AvroType, is_top: bool) -> None:
    if isinstance(avro, Record):
        if avro.recursive:
            raise SchemaError(f"the record {avro.name} contains itself, which columns cannot: write the nested value as bytes")
        if not avro.fields and not is_top:
            raise SchemaError(f"the record {avro.name} is without fields, which columns cannot be: give it one, or leave it out")
        lower = [one.name.lower() for one in avro.fields]
        if twice := sorted({name for name in lower if lower.count(name) > 1}):
            raise SchemaError(f"fields of {avro.name} differ in upper and lower case only ({', '.join(twice)}): rename one")
        for one in avro.fields:
            _check_not_null(one.type, f"the field {one.name!r} of {avro.name}")
    elif isinstance(avro, Array):
        _check_not_null(avro.items, "the items of an array")
    elif isinstance(avro, Map):
        _check_not_null(avro.values, "the values of a map")
    elif isinstance(avro, Primitive | Fixed) and avro.logical is not None and avro.logical.precision > DECIMAL_DIGITS_MAX:
        raise SchemaError(f"a decimal of {avro.logical.precision} digits: columns hold at most {DECIMAL_DIGITS_MAX} digits")


def _check_not_null(avro: AvroType, what: str) -> None:
    branches = avro.branches if isinstance(avro, Union) else (avro,)
    if {type_name(branch) for branch in branches} == {"null"}:
        raise SchemaError(f"{what} is always null: give it another type, or leave it out")
