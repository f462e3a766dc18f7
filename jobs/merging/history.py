"""``scd: 2``: a row for each record of a key, with the time in which it was what the key held.

``valid_from`` is the record's ``sequence_by``; without one, its timestamp, or an earlier record's of the same key if that is
later (clocks differ, the log decides). ``valid_to`` is the next record's ``valid_from``, so at any time at most one row of a
key is valid. A delete ends the row before it and is kept as a hidden row.

A record that comes late changes rows around it: the whole history of its key is computed anew from what each row says of its
own record, so the result is that of any other order of arrival.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F

from jobs.merging.current import ROWS
from jobs.merging.plan import MergePlan
from jobs.merging.rows import token
from jobs.tables import DELETED, META, REJECTED
from pipeline.config.merge import HISTORY_COLUMNS

_TOKEN, _NEW, _WHOLE, _LIFE = "_token", "_new", "_whole", "_life"
FROM, TO, CURRENT = HISTORY_COLUMNS


class History:
    """Rows are told apart by key and token: one record is one row, however often it is merged."""

    needs_table = True

    def __init__(self, plan: MergePlan) -> None:
        self._plan = plan

    def reduced(self, records: DataFrame) -> DataFrame:
        """Each record as it is, without its place in history."""
        if self._plan.merge.ignore_null_updates:
            records = records.withColumn(META, F.col(META).withField("carried", F.lit(None).cast("array<string>")))
        return records.withColumn(ROWS, F.lit(1))

    def complete(self, reduced: DataFrame, there: DataFrame | None) -> DataFrame:
        """The rows that a MERGE has to insert or change: the new ones, those after them, and the one before."""
        rows = reduced.withColumn(_NEW, F.lit(True))
        if there is not None:
            known = self._own(there).drop(*HISTORY_COLUMNS).withColumn(_NEW, F.lit(False))
            rows = rows.unionByName(known, allowMissingColumns=True)
        rows = self._once(rows)
        of_key = Window.partitionBy(*self._plan.keys, f"{REJECTED}.record")
        in_order = of_key.orderBy(_TOKEN)
        rows = self._carried(rows, in_order)
        rows = rows.withColumn(FROM, self._valid_from(in_order))
        next_token = F.lead(_TOKEN).over(in_order)
        first_new = F.min(F.when(F.col(_NEW), F.col(_TOKEN))).over(of_key)
        placed = rows.withColumns(
            {
                TO: F.lead(FROM).over(in_order),
                CURRENT: next_token.isNull() & ~F.col(DELETED),
                _NEW: first_new.isNotNull() & F.coalesce(next_token >= first_new, F.lit(True)),
            }
        )
        ours = (META, DELETED, REJECTED)
        names = [name for name in reduced.columns if name not in ours]
        added = [name for name in placed.columns if name not in (*names, *ours, *HISTORY_COLUMNS, _NEW, _TOKEN)]
        return placed.where(_NEW).select(*names, *added, *HISTORY_COLUMNS, *ours)

    def same(self) -> Column:
        """What tells the records of a key apart in a MERGE. Two rows of one record have the same sequence."""
        out = F.lit(True)
        for name in self._plan.token:
            out = out & F.col(f"t.{META}.{name}").eqNullSafe(F.col(f"s.{META}.{name}"))
        return out

    def changed(self) -> Column | None:
        if self._plan.merge.ignore_null_updates:  # a value that is carried over may have changed
            return None
        same = F.lit(True)
        for name in HISTORY_COLUMNS:
            same = same & F.col(f"t.{name}").eqNullSafe(F.col(f"s.{name}"))
        return ~same

    def _valid_from(self, in_order: WindowSpec) -> Column:
        if self._plan.merge.sequence_by is not None:
            return F.col(self._plan.merge.sequence_by)
        return F.max(f"{META}.timestamp").over(in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow))

    def _once(self, rows: DataFrame) -> DataFrame:
        """With ``_token``; of a record that is in the table already, the table's row."""
        whole = F.struct(*(F.col(name) for name in rows.columns))
        keys = [F.col(name).alias(f"_key{n}") for n, name in enumerate(self._plan.keys)]
        found = rows.groupBy(*keys, token("", self._plan).alias(_TOKEN)).agg(F.min_by(whole, F.col(_NEW)).alias(_WHOLE))
        return found.select(f"{_WHOLE}.*", _TOKEN)

    def _updated(self, rows: DataFrame) -> list[str]:
        others = {*self._plan.keys, self._plan.merge.sequence_by, *HISTORY_COLUMNS, META, DELETED, REJECTED, _NEW, _TOKEN}
        return [name for name in rows.columns if name not in others]

    def _own(self, there: DataFrame) -> DataFrame:
        """Stored rows with the values of their own records only."""
        if not self._plan.merge.ignore_null_updates:
            return there
        carried = F.coalesce(f"{META}.carried", F.array().cast("array<string>"))
        return there.withColumns({n: F.when(~F.array_contains(carried, n), F.col(n)) for n in self._updated(there)})

    def _carried(self, rows: DataFrame, in_order: WindowSpec) -> DataFrame:
        """Values for what is null in an update, from the newest record before it that has one, back to the newest delete."""
        if not self._plan.merge.ignore_null_updates:
            return rows
        columns = self._updated(rows)
        so_far = in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
        is_delete = F.col(DELETED) & F.col(REJECTED).isNull()
        rows = rows.withColumns({name: F.when(~is_delete, F.col(name)) for name in columns})
        rows = rows.withColumn(_LIFE, F.count_if(is_delete).over(so_far))
        life = Window.partitionBy(*self._plan.keys, f"{REJECTED}.record", _LIFE).orderBy(_TOKEN)
        in_life = life.rowsBetween(Window.unboundedPreceding, Window.currentRow)
        filled = {name: F.last(name, ignorenulls=True).over(in_life) for name in columns}
        was_null = F.array_compact(F.array(*(F.when(F.col(n).isNull() & ~is_delete, F.lit(n)) for n in columns)))
        rows = rows.withColumns({META: F.col(META).withField("carried", was_null)} | filled)
        return rows.drop(_LIFE)
