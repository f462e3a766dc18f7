"""Two streams joined: rows of two bronze tables with equal columns and event times near each other (docs/adr/0030).

A step joins what is new on either side with all of the other side that is near enough in time, so each pair is appended once, in
the step in which its later row came. A row older than the watermark goes to ``<table>__late`` and is not joined. ``kind: left``
appends a left row without a match once the watermark has passed the last moment at which one could have come.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import tables
from jobs.golds.commit import Output
from jobs.golds.late import LateTable, late_rows
from jobs.golds.sources import Position, Sources
from jobs.golds.state import MICROSECOND, State, definition_of
from jobs.golds.windows import check_columns, check_time
from jobs.tables import RESERVED
from pipeline import metrics
from pipeline.config import Config, TableConfig
from pipeline.config.gold import StreamJoin
from pipeline.errors import ConfigError

_THERE = "_headrace_there"


@dataclass(frozen=True, slots=True)
class _Sides:
    """Rows of both sources, without late ones: those that are new, those before them, and all."""

    fresh: list[DataFrame]
    earlier: list[DataFrame]
    all: list[DataFrame]


class JoinGold:
    """One thread at a time."""

    def __init__(self, spark: SparkSession, config: Config, table: TableConfig) -> None:
        assert table.join is not None
        self._spark, self._config, self._table = spark, config, table
        self._join: StreamJoin = table.join
        self._names = list(table.sources)
        self._times = [table.join.times[name] for name in self._names]
        self._sources = Sources(spark, config, table.name)
        self._output = Output(spark, config, table)
        self._late = LateTable(spark, config, table)
        self._definition = definition_of(self._join, self._names)
        self._before_us = (self._join.before or timedelta(0)) // MICROSECOND
        self._after_us = (self._join.after or timedelta(0)) // MICROSECOND
        self._is_prepared = False

    def prepare(self) -> None:
        """Have the sources keep what this table needs. Raises TableError for one that is not there yet."""
        if not self._is_prepared:
            self._check()
            self._sources.follow_changes(list(zip(self._names, self._times, strict=True)))
            self._late.prepare()
            self._is_prepared = True

    def step(self) -> bool:
        """Bring the table up to its sources. Returns whether there was anything to do."""
        self.prepare()
        now = self._sources.now()
        state = State.from_metadata(self._output.metadata())
        follows = state is not None and all(now[name].follows(at) for name, at in state.positions.items())
        if state is None or state.definition != self._definition or not follows:
            nowhere = {name: Position(at.version, at.id, {}) for name, at in now.items()}
            self._advance(State(self._definition, nowhere), now, anew=True)
            return True
        until = self._late.under_way(state.since) or now
        if until == state.positions:
            return False
        self._advance(state, until)
        return True

    def late(self) -> tuple[int, int | None]:
        """Late rows so far, and the watermark in microseconds."""
        state = State.from_metadata(self._output.metadata())
        return (state.late, state.watermark_us(self._join.lateness)) if state else (0, None)

    # -- a step ------------------------------------------------------------------------------------------------------

    def _advance(self, state: State, until: Mapping[str, Position], anew: bool = False) -> None:
        watermark = state.watermark_us(self._join.lateness)
        new = [self._sources.changes(name, state.positions[name], until[name]) for name in self._names]
        late = reduce(DataFrame.unionByName, map(self._late_of, (0, 1), new, (watermark, watermark)))
        number = self._late.start_anew(late) if anew else self._late.add(late, state.since, until)
        newest = {
            name: rows.agg(F.max(F.unix_micros(on))).collect()[0][0]
            for name, rows, on in zip(self._names, new, self._times, strict=True)
        }
        seen = state.seen(newest, time.time_ns() // 1000)
        after = State(self._definition, dict(until), seen, state.late + number)
        sides = self._sides(state, until, watermark)
        rows = self._pairs(sides.fresh[0], sides.all[1]).unionByName(self._pairs(sides.earlier[0], sides.fresh[1]))
        if self._join.kind == "left":
            rows = rows.unionByName(self._alone(sides, watermark, after.watermark_us(self._join.lateness)))
        write = self._output.overwrite if anew else self._output.append
        write(rows, after.to_metadata())
        metrics.TABLE_LATE.labels(self._table.name).inc(number)

    def _sides(self, state: State, until: Mapping[str, Position], watermark_us: int | None) -> _Sides:
        """Rows so old that no row in time can match them are left out: files of their times are not read."""
        fresh, earlier, everything = [], [], []
        reach = (self._after_us, self._before_us + (self._after_us if self._join.kind == "left" else 0))
        for at, name in enumerate(self._names):
            on = F.col(self._times[at])
            near = on.isNotNull()
            if watermark_us is not None:
                near = on >= F.timestamp_micros(F.lit(watermark_us - reach[at]))
            stored = self._late.without(self._sources.stored(name, until[name]).where(near), name)
            before = self._late.without(self._sources.stored(name, state.positions[name]).where(near), name)
            changed = self._sources.changes(name, state.positions[name], until[name])
            fresh.append(self._late.without(changed.where(near), name))
            earlier.append(before)
            everything.append(stored)
        return _Sides(fresh, earlier, everything)

    def _late_of(self, at: int, rows: DataFrame, watermark_us: int | None) -> DataFrame:
        on = F.col(self._times[at])
        is_late = on.isNull()
        if watermark_us is not None:
            is_late = is_late | (on < F.timestamp_micros(F.lit(watermark_us)))
        return late_rows(rows.where(is_late), self._names[at], self._times[at], None, watermark_us)

    def _pairs(self, left: DataFrame, right: DataFrame) -> DataFrame:
        return self._selected(left.alias("left").join(right.alias("right"), self._fits(), "inner"))

    def _alone(self, sides: _Sides, watermark_us: int | None, next_us: int | None) -> DataFrame:
        """Left rows that this step's watermark passed, without a match."""
        last = F.unix_micros(F.col(self._times[0])) + self._after_us
        is_over = F.lit(False) if next_us is None else last < next_us
        was_over = F.lit(False) if watermark_us is None else last < watermark_us
        left = sides.all[0].where(is_over & ~was_over)
        right = sides.all[1].withColumn(_THERE, F.lit(True))
        joined = left.alias("left").join(right.alias("right"), self._fits(), "left")
        return self._selected(joined.where(F.col(f"right.{_THERE}").isNull()))

    def _fits(self) -> Column:
        same = (F.col(f"left.`{name}`") == F.col(f"right.`{name}`") for name in self._join.on)
        left, right = (F.unix_micros(F.col(f"{side}.`{on}`")) for side, on in zip(("left", "right"), self._times, strict=True))
        near = (right >= left - self._before_us) & (right <= left + self._after_us)
        return reduce(lambda a, b: a & b, same) & near

    def _selected(self, joined: DataFrame) -> DataFrame:
        return joined.select(*(F.expr(text).alias(name) for name, text in self._columns().items()))

    def _columns(self) -> Mapping[str, str]:
        if self._join.select:
            return self._join.select
        left, right = (self._own(name) for name in self._names)
        out = {name: f"left.`{name}`" for name in left}
        return out | {name: f"right.`{name}`" for name in right if name not in self._join.on}

    def _own(self, source: str) -> list[str]:
        return [name for name in tables.load(self._spark, self._config, source).columns if name not in RESERVED]

    # -- before it runs ----------------------------------------------------------------------------------------------

    def _check(self) -> None:
        where = f"tables.{self._table.name}.join"
        empty = [tables.load(self._spark, self._config, name).limit(0) for name in self._names]
        for name, on, rows in zip(self._names, self._times, empty, strict=True):
            kinds = {field.name: field.dataType for field in rows.schema.fields if field.name not in RESERVED}
            check_columns(where, name, [*self._join.on, on], kinds)
            check_time(f"{where}.times", name, on, kinds)
        both = set(self._own(self._names[0])) & set(self._own(self._names[1])) - set(self._join.on)
        if both and not self._join.select:
            names = ", ".join(sorted(both))
            raise ConfigError(f"{where}: both tables have {names}: say with `select:` what the result's columns are")
        try:
            self._pairs(*empty)
        except AnalysisException as error:
            raise ConfigError(f"{where}: does not fit its tables: {str(error).splitlines()[0]}") from error
