"""Recursive schemas, written out so that fastavro cannot recurse without end.

fastavro recurses in C: hostile bytes of a record that contains itself kill the process. A pass over all bytes that counts
the depth costs a quarter of the decoding. So the writer's schema is unrolled instead: ``Node`` becomes ``Node`` at depth 1,
which holds ``Node`` at depth 2, and so on; in the last one's place stands a type that no body is long enough for. The bytes
mean the same, and reading them costs what it did.
"""

from __future__ import annotations

from typing import Any

import fastavro

from pipeline.schema.avro_types import (
    RECURSION_MAX,
    Array,
    AvroType,
    Enum,
    Fixed,
    Logical,
    Map,
    Primitive,
    Record,
    Union,
    walk,
)
from pipeline.schema.bounded_decimal import NAME as BOUNDED_DECIMAL

# Each of them becomes RECURSION_MAX records.
RECURSIVE_RECORDS_MAX = 32
_TOO_DEEP_BYTES = (1 << 31) - 1  # above every limit on a body


def unrolled(avro: Record) -> dict[str, Any] | None:
    """fastavro's parsed form of a type, its recursion bounded to RECURSION_MAX; None where it is too large to be written out."""
    recursive = [one for one in walk(avro) if isinstance(one, Record) and one.recursive]
    if len(recursive) > RECURSIVE_RECORDS_MAX:
        return None
    unroller = _Unroller()
    for depth in range(RECURSION_MAX, 0, -1):  # the deepest first: each names those below it
        for record in recursive:
            unroller.define(record, depth)
    return unroller.define(avro, 1 if avro.recursive else 0)


class _Unroller:
    """Names are numbers: the schema's own could meet those of other depths."""

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}
        self.records: dict[tuple[Record, int], dict[str, Any]] = {}
        self.others: dict[Enum | Fixed, str] = {}
        self.too_deep = self._parse({"type": "fixed", "size": _TOO_DEEP_BYTES})["name"]

    def define(self, record: Record, depth: int) -> dict[str, Any]:
        """``record`` as the ``depth``th recursive record on the way to it (for one that is not recursive: inside that one)."""
        if (record, depth) not in self.records:
            fields = [{"name": one.name, "type": self._type(one.type, depth)} for one in record.fields]
            self.records[record, depth] = self._parse({"type": "record", "fields": fields})
        return self.records[record, depth]

    def _type(self, avro: AvroType, depth: int) -> Any:
        if isinstance(avro, Record):
            inside = depth + avro.recursive
            return self.too_deep if inside > RECURSION_MAX else self.define(avro, inside)["name"]
        if isinstance(avro, Union):
            return [self._type(branch, depth) for branch in avro.branches]
        if isinstance(avro, Array):
            return {"type": "array", "items": self._type(avro.items, depth)}
        if isinstance(avro, Map):
            return {"type": "map", "values": self._type(avro.values, depth)}
        if isinstance(avro, Primitive):
            return {"type": avro.name} | _logical(avro.logical)
        if avro not in self.others:
            own: dict[str, Any] = {"type": "enum", "symbols": list(avro.symbols)} if isinstance(avro, Enum) else _fixed(avro)
            self.others[avro] = self._parse(own)["name"]
        return self.others[avro]

    def _parse(self, tree: dict[str, Any]) -> dict[str, Any]:
        named: Any = tree | {"name": f"t{len(self.named)}"}
        parsed: dict[str, Any] = fastavro.parse_schema(named, named_schemas=self.named)  # type: ignore[assignment]
        return parsed


def _fixed(avro: Fixed) -> dict[str, Any]:
    return {"type": "fixed", "size": avro.size_bytes} | _logical(avro.logical)


def _logical(logical: Logical | None) -> dict[str, Any]:
    if logical is None:
        return {}
    if logical.name == "decimal":
        return {"logicalType": BOUNDED_DECIMAL, "precision": logical.precision, "scale": logical.scale}
    return {"logicalType": logical.name}
