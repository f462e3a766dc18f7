"""Decimals on the way out of fastavro, bounded.

fastavro's own reader brings bytes of any length to a Decimal, in time with the square of the length (400 kB: 16 s), and
rounds what exceeds the precision. This one stands in its place, under a name of its own in fastavro's table of logical
types, and costs nothing beside it; a pass over all bytes before it would cost a third of the decoding.
"""

from __future__ import annotations

import decimal
from functools import lru_cache
from typing import Any

from fastavro.read import LOGICAL_READERS

from pipeline.errors import DecodeError
from pipeline.schema.avro_types import Logical
from pipeline.schema.logical import decimal_bytes_max

NAME = "headrace-decimal"


def with_bounded_decimals(tree: Any) -> Any:
    """The JSON of a schema, with every decimal of bytes or fixed under our name."""
    if isinstance(tree, list):
        return [with_bounded_decimals(one) for one in tree]
    if not isinstance(tree, dict):
        return tree
    changed = {key: with_bounded_decimals(tree[key]) for key in ("type", "items", "values", "fields") if key in tree}
    if tree.get("logicalType") == "decimal" and tree.get("type") in ("bytes", "fixed"):
        changed["logicalType"] = NAME
    return tree | changed


@lru_cache(maxsize=1_024)
def _bounds(precision: int) -> tuple[int, int, decimal.Context]:
    return decimal_bytes_max(Logical("decimal", precision)), 10**precision, decimal.Context(prec=precision)


def _read(data: Any, writer: Any, _: Any = None) -> decimal.Decimal:
    bytes_max, limit, context = _bounds(writer["precision"])
    if len(data) > bytes_max and writer["type"] == "bytes":
        raise DecodeError("not a value of its schema: a decimal of more bytes than its precision needs")
    unscaled = int.from_bytes(data, "big", signed=True)
    if not -limit < unscaled < limit:
        raise DecodeError("not a value of its schema: a decimal of more digits than its precision")
    return decimal.Decimal(unscaled).scaleb(-writer.get("scale", 0), context)


LOGICAL_READERS[f"bytes-{NAME}"] = LOGICAL_READERS[f"fixed-{NAME}"] = _read
