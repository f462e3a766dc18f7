"""``scd: 1``: one row a key.

Both folds are associative, commutative and idempotent over the records of a key, so neither the order of arrival nor the cut
into micro-batches nor a replay shows in the table.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, GroupedData
from pyspark.sql import functions as F

from jobs.merging.plan import MergePlan
from jobs.merging.rows import token
from jobs.tables import DELETED, META, REJECTED

ROWS = "_rows"
"""How many records of the micro-batch a row stands for."""
_NEWEST, _CLEARED = "_newest", "_cleared"


class Newest:
    """The newest record of each key is its row."""

    needs_table = False

    def __init__(self, plan: MergePlan) -> None:
        self._plan = plan

    def reduced(self, records: DataFrame) -> DataFrame:
        whole = F.struct(*(F.col(name) for name in records.columns))
        found = _grouped(records, self._plan).agg(
            F.max_by(whole, token("", self._plan)).alias(_NEWEST), F.count(F.lit(1)).alias(ROWS)
        )
        return found.select(f"{_NEWEST}.*", ROWS)

    def complete(self, reduced: DataFrame, there: DataFrame | None) -> DataFrame:
        return reduced

    def same(self) -> Column:
        return F.lit(True)

    def changed(self) -> Column | None:
        return token("s.", self._plan) > token("t.", self._plan)


class Updates:
    """``ignore_null_updates``: each column has the value of the newest record in which it was not null, since the newest delete.

    A row keeps the token of each column's record (``_meta.set``) and that of the newest delete (``_meta.cleared``): with them
    a late record fills just the columns that nobody newer has set, and never one that was deleted after it.
    """

    needs_table = True

    def __init__(self, plan: MergePlan) -> None:
        self._plan = plan

    def reduced(self, records: DataFrame) -> DataFrame:
        own = token("", self._plan)
        is_delete = F.col(DELETED) & F.col(REJECTED).isNull()
        set_by = F.struct(*(F.when(F.col(n).isNotNull() & ~is_delete, own).alias(n) for n in self._columns(records)))
        meta = F.col(META).withField("cleared", F.when(is_delete, own)).withField("set", set_by)
        return self._folded(records.withColumn(META, meta))

    def complete(self, reduced: DataFrame, there: DataFrame | None) -> DataFrame:
        if there is None:
            return reduced
        return self._folded(reduced.unionByName(there, allowMissingColumns=True)).drop(ROWS)

    def same(self) -> Column:
        return F.lit(True)

    def changed(self) -> Column | None:
        return None

    def _columns(self, rows: DataFrame) -> list[str]:
        """Those that keep their value when a record has none."""
        others = {*self._plan.keys, self._plan.merge.sequence_by, META, DELETED, REJECTED}
        return [name for name in rows.columns if name not in others]

    def _folded(self, rows: DataFrame) -> DataFrame:
        columns = self._columns(rows)
        newest = F.struct(*(F.col(name) for name in rows.columns if name not in columns))

        def latest(name: str) -> Column:
            at = F.col(f"{META}.set.{name}")
            return F.max_by(F.struct(at.alias("at"), F.col(name).alias("value")), at).alias(name)

        found = _grouped(rows, self._plan).agg(
            F.max_by(newest, token("", self._plan)).alias(_NEWEST),
            F.max(f"{META}.cleared").alias(_CLEARED),
            F.count(F.lit(1)).alias(ROWS),
            *(latest(name) for name in columns),
        )

        def stands(name: str, field: str) -> Column:
            is_newer = F.col(_CLEARED).isNull() | (F.col(f"{name}.at") > F.col(_CLEARED))
            return F.when(is_newer, F.col(f"{name}.{field}")).alias(name)

        meta = F.col(f"{_NEWEST}.{META}").withField("cleared", F.col(_CLEARED))
        meta = meta.withField("set", F.struct(*(stands(name, "at") for name in columns)))
        made = {name: stands(name, "value") for name in columns} | {META: meta.alias(META)}
        return found.select(*(made.get(name, F.col(f"{_NEWEST}.{name}")) for name in rows.columns), ROWS)


def _grouped(rows: DataFrame, plan: MergePlan) -> GroupedData:
    """By key; each dead letter is a group of its own."""
    keys = [F.col(name).alias(f"_key{n}") for n, name in enumerate(plan.keys)]
    return rows.groupBy(*keys, F.col(f"{REJECTED}.record").alias("_record"))
