"""Some keys of a table: those that changed, or are to be replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

_BROADCAST_KEYS_MAX = 200_000
_ORDERED = (T.StringType, T.DateType, T.ByteType, T.ShortType, T.IntegerType, T.LongType, T.DecimalType)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lowest and highest value of a key column; times as microseconds, for a literal of Python's would pass through its zone."""

    low: Any = None
    high: Any = None
    has_nulls: bool = True
    is_time: bool = False

    def hold(self, column: Column) -> Column:
        """True for every value that a key may have."""
        if self.low is None:
            return F.lit(True)
        low, high = F.lit(self.low), F.lit(self.high)
        if self.is_time:
            low, high = F.timestamp_micros(low), F.timestamp_micros(high)
        inside = column.between(low, high)
        return (inside | column.isNull()) if self.has_nulls else inside


@dataclass(frozen=True, slots=True)
class Keys:
    """``rows`` are distinct and kept in memory while ``kept`` lasts; there are ``count`` of them."""

    rows: DataFrame
    count: int
    bounds: Sequence[Bounds]

    def having(self, rows: DataFrame, columns: Sequence[Column]) -> DataFrame:
        """Those of ``rows`` whose ``columns`` are one of the keys; nulls are equal to nulls."""
        names = [f"_headrace_key_{at}" for at in range(len(columns))]
        for column, bounds in zip(columns, self.bounds, strict=True):
            rows = rows.where(bounds.hold(column))
        keys = self.rows.toDF(*names)
        if self.count <= _BROADCAST_KEYS_MAX:
            keys = F.broadcast(keys)
        same = reduce(lambda a, b: a & b, (c.eqNullSafe(F.col(n)) for c, n in zip(columns, names, strict=True)))
        return rows.join(keys, same, "left_semi")


@contextmanager
def kept(rows: DataFrame) -> Iterator[Keys]:
    """The distinct ``rows`` as keys, within the block."""
    distinct = rows.distinct().persist(StorageLevel.MEMORY_AND_DISK)
    try:
        yield _measured(distinct)
    finally:
        distinct.unpersist()


def _measured(distinct: DataFrame) -> Keys:
    asked: list[Column] = [F.count(F.lit(1))]
    for field in distinct.schema.fields:
        column = F.col(f"`{field.name}`")
        value = F.unix_micros(column) if isinstance(field.dataType, T.TimestampType) else column
        if not isinstance(field.dataType, (*_ORDERED, T.TimestampType)):
            value = F.lit(None)
        asked += [F.min(value), F.max(value), F.count_if(column.isNull())]
    found = distinct.agg(*asked).collect()[0]
    bounds = [
        Bounds(found[1 + 3 * at], found[2 + 3 * at], bool(found[3 + 3 * at]), isinstance(field.dataType, T.TimestampType))
        for at, field in enumerate(distinct.schema.fields)
    ]
    return Keys(distinct, int(found[0]), bounds)
