"""Event-time windows over a bronze or silver table: tumbling, sliding, sessions (docs/adr/0030).

A step takes what changed in the source since the last commit. A window that the watermark has closed is final: changes that are
for it go to ``<table>__late``. Every other window that a change touches is computed anew from the source's rows as they are,
and replaced: so an open window is always what one query over the source would give, after updates and deletes too, and a
closed one is what it was when it closed. Over bronze that means: all rows but the late ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import reduce

from pyspark import StorageLevel
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import Window as Over
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs import tables
from jobs.golds.aggregate import SALT, SALTS, Aggregates
from jobs.golds.commit import Output
from jobs.golds.keys import Keys, kept
from jobs.golds.late import MISSED, WINDOWS, LateTable, late_rows
from jobs.golds.sources import BEFORE, CHANGE, VERSION, Position, Sources
from jobs.golds.state import MICROSECOND, State, definition_of
from jobs.tables import META, RESERVED
from pipeline import metrics
from pipeline.config import Config, TableConfig
from pipeline.config.gold import Window
from pipeline.errors import ConfigError

START, END = "window_start", "window_end"
_OPEN, _LOW, _HIGH = "_headrace_open", "_headrace_low", "_headrace_high"


class WindowGold:
    """One thread at a time."""

    def __init__(self, spark: SparkSession, config: Config, table: TableConfig) -> None:
        assert table.window is not None
        self._spark, self._config, self._table = spark, config, table
        self._window: Window = table.window
        self._source = table.sources[0]
        self._is_bronze = config.table(self._source).layer == "bronze"
        self._salted = self._window.salted if self._window.salted is not None else _is_salted(config, self._source)
        where = f"tables.{table.name}.window.aggregate"
        self._aggregates = Aggregates(where, self._window.aggregate, self._salted)
        self._sources = Sources(spark, config, table.name)
        self._output = Output(spark, config, table)
        self._late = LateTable(spark, config, table)
        self._definition = definition_of(self._window, self._source)
        self._is_prepared = False

    def prepare(self) -> None:
        """Have the sources keep what this table needs. Raises TableError for one that is not there yet."""
        if not self._is_prepared:
            self._check()
            self._sources.follow_changes([(self._source, self._window.on)])
            self._late.prepare()
            self._is_prepared = True

    def step(self) -> bool:
        """Bring the table up to its source. Returns whether there was anything to do."""
        self.prepare()
        now = self._sources.now()
        state = State.from_metadata(self._output.metadata())
        if state is None or state.definition != self._definition or not now[self._source].follows(state.positions[self._source]):
            self._make_anew(now[self._source])
            return True
        until = self._late.under_way(state.since) or now
        if until == state.positions:
            return False
        self._advance(state, until[self._source])
        return True

    def late(self) -> tuple[int, int | None]:
        """Late rows so far, and the watermark in microseconds."""
        state = State.from_metadata(self._output.metadata())
        return (state.late, state.watermark_us(self._window.lateness)) if state else (0, None)

    # -- a step ------------------------------------------------------------------------------------------------------

    def _make_anew(self, until: Position) -> None:
        rows = self._sources.stored(self._source, until)
        timeless = rows.where(F.col(self._window.on).isNull())
        timeless = timeless.withColumns({CHANGE: F.lit("insert"), VERSION: F.lit(until.version)})
        late = self._late.start_anew(late_rows(timeless, self._source, self._window.on, None, None))
        state = State(self._definition, {self._source: until}, late=late)
        newest = rows.agg(F.max(F.unix_micros(self._window.on))).collect()[0][0]
        self._output.overwrite(self._computed(rows), self._after(state, until, newest, 0).to_metadata())

    def _advance(self, state: State, until: Position) -> None:
        watermark = state.watermark_us(self._window.lateness)
        changes = self._sources.changes(self._source, state.positions[self._source], until)
        changes = changes.persist(StorageLevel.MEMORY_AND_DISK)
        try:
            marked = self._marked(changes, watermark)
            late = late_rows(self._missing(marked), self._source, self._window.on, F.col(MISSED), watermark)
            number = self._late.add(late, state.since, {self._source: until})
            newest = changes.where(F.col(CHANGE) != BEFORE).agg(F.max(F.unix_micros(self._window.on))).collect()[0][0]
            after = self._after(state, until, newest, number).to_metadata()
            touched = self._touched_sessions if self._window.gap else self._touched_windows
            with kept(touched(marked)) as keys:
                rows = self._sources.stored(self._source, until)
                anew = self._sessions_of(marked, keys, rows) if self._window.gap else self._windows_of(keys, rows)
                self._output.replace(anew, keys, after)
            metrics.TABLE_LATE.labels(self._table.name).inc(number)
        finally:
            changes.unpersist()

    def _after(self, state: State, until: Position, newest_us: int | None, late: int) -> State:
        newest = state.seen({self._source: newest_us}, time.time_ns() // 1000)
        return State(self._definition, {self._source: until}, newest, state.late + late)

    def _marked(self, changes: DataFrame, watermark_us: int | None) -> DataFrame:
        """Changes with the windows that they come too late for, and those that are open."""
        windows = self._windows()
        if watermark_us is None:
            nothing = F.lit(None).cast(WINDOWS)
            return changes.withColumn(MISSED, nothing).withColumn(_OPEN, windows)
        at = F.timestamp_micros(F.lit(watermark_us))
        return changes.withColumns(
            {
                MISSED: F.filter(windows, lambda one: one["end"] <= at),
                _OPEN: F.filter(windows, lambda one: one["end"] > at),
            }
        )

    def _missing(self, marked: DataFrame) -> DataFrame:
        """Changes that some window, or every one for lack of a time, does without. Of an update that comes too late with both
        its images the new one is kept."""
        missing = marked.where((F.size(MISSED) > 0) | F.col(self._window.on).isNull())
        if not self._is_bronze:
            merge = self._config.table(self._source).merge
            assert merge is not None
            both = Over.partitionBy(*merge.keys, *(["valid_from"] if merge.scd == 2 else []), VERSION)
            is_new = F.max((F.col(CHANGE) == "update_postimage").cast("int")).over(both) == 1
            missing = missing.withColumn(_OPEN, is_new).where(~(F.col(_OPEN) & (F.col(CHANGE) == BEFORE)))
        return missing.drop(_OPEN)

    # -- tumbling and sliding ----------------------------------------------------------------------------------------

    def _windows(self) -> Column:
        """The windows of a row; of a session the one that it opens alone. None for a row without a time."""
        at = F.unix_micros(F.col(self._window.on))
        if self._window.gap is not None:
            alone = F.struct(F.timestamp_micros(at).alias("start"), F.timestamp_micros(at + self._length_us).alias("end"))
            return F.when(at.isNotNull(), F.array(alone))
        slide = self._slide_us
        newest = at - F.pmod(at, F.lit(slide))
        steps = F.sequence(F.lit(0), F.lit(-(-self._length_us // slide) - 1))
        starts = F.transform(steps, lambda n: newest - n.cast("bigint") * slide)
        held = F.filter(starts, lambda start: start + self._length_us > at)
        return F.transform(
            held,
            lambda start: F.struct(
                F.timestamp_micros(start).alias("start"), F.timestamp_micros(start + self._length_us).alias("end")
            ),
        )

    def _in_windows(self, rows: DataFrame, windows: Column) -> DataFrame:
        """Rows, once for each of their windows."""
        return rows.withColumn("_headrace_window", F.explode(windows)).withColumns(
            {START: F.col("_headrace_window.start"), END: F.col("_headrace_window.end")}
        )

    def _touched_windows(self, marked: DataFrame) -> DataFrame:
        return self._in_windows(marked, F.col(_OPEN)).select(START, *self._window.group_by)

    def _windows_of(self, keys: Keys, rows: DataFrame) -> DataFrame:
        on, bounds = F.col(self._window.on), keys.bounds[0]
        if bounds.low is not None:  # files of other times are not read
            end = F.timestamp_micros(F.lit(bounds.high + self._length_us))
            rows = rows.where((on >= F.timestamp_micros(F.lit(bounds.low))) & (on < end))
        rows = self._in_windows(self._with_salt(rows), self._windows())
        return self._grouped(keys.having(rows, [F.col(name) for name in keys.rows.columns]))

    def _grouped(self, rows: DataFrame) -> DataFrame:
        found = self._aggregates.over(rows, [START, END, *self._window.group_by])
        return found.select(START, END, *self._window.group_by, *self._window.aggregate)

    # -- sessions ----------------------------------------------------------------------------------------------------

    def _spans(self, marked: DataFrame) -> DataFrame:
        """By group: from the first to the last moment that the rows in time reach."""
        window = F.get(F.col(_OPEN), F.lit(0))
        ends = (F.min(window["start"]).alias(_LOW), F.max(window["end"]).alias(_HIGH))
        return marked.where(F.size(_OPEN) > 0).groupBy(*self._groups("_span_")).agg(*ends)

    def _touched_sessions(self, marked: DataFrame) -> DataFrame:
        """The sessions there are that a row in time, or one between two, may belong to."""
        spans = self._spans(marked)
        there = self._output.stored().join(spans, self._same_group("_span_"))
        return there.where((F.col(START) <= F.col(_HIGH)) & (F.col(END) >= F.col(_LOW))).select(START, *self._window.group_by)

    def _sessions_of(self, marked: DataFrame, keys: Keys, rows: DataFrame) -> DataFrame:
        """The sessions of all rows in the spans, which the sessions there make wider."""
        touched = keys.having(self._output.stored(), [F.col(name) for name in keys.rows.columns])
        reach = touched.groupBy(*self._groups("_span_")).agg(F.min(START).alias(_LOW), F.max(END).alias(_HIGH))
        spans = self._spans(marked).unionByName(reach)
        whole = spans.groupBy(*[f"_span_{at}" for at in range(len(self._window.group_by))]).agg(
            F.min(_LOW).alias(_LOW), F.max(_HIGH).alias(_HIGH)
        )
        on = F.col(self._window.on)
        inside = self._same_group("_span_") & (on >= F.col(_LOW)) & (on < F.col(_HIGH))
        rows = self._late.without(rows.join(F.broadcast(whole), inside), self._source)
        return self._computed(rows)

    def _groups(self, prefix: str) -> list[Column]:
        return [F.col(f"`{name}`").alias(f"{prefix}{at}") for at, name in enumerate(self._window.group_by)]

    def _same_group(self, prefix: str) -> Column:
        same = (F.col(f"`{n}`").eqNullSafe(F.col(f"{prefix}{at}")) for at, n in enumerate(self._window.group_by))
        return reduce(lambda a, b: a & b, same, F.lit(True))

    # -- both --------------------------------------------------------------------------------------------------------

    def _computed(self, rows: DataFrame) -> DataFrame:
        """The windows of all these rows."""
        rows = self._with_salt(rows.where(F.col(self._window.on).isNotNull()))
        if self._window.gap is None:
            return self._grouped(self._in_windows(rows, self._windows()))
        gap = f"{self._length_us} microseconds"
        found = self._aggregates.over_sessions(rows, self._window.group_by, self._window.on, gap)
        return found.select(START, END, *self._window.group_by, *self._window.aggregate)

    def _with_salt(self, rows: DataFrame) -> DataFrame:
        """The salt that a salted stream gave the record, so cold keys stay whole; else one of the record's identity."""
        if not self._salted:
            return rows
        if self._is_bronze and _is_salted(self._config, self._source):
            return rows.withColumn(SALT, F.col(f"{META}.salt"))
        return rows.withColumn(SALT, F.pmod(F.xxhash64(f"{META}.producer", f"{META}.seq"), F.lit(SALTS)))

    @property
    def _length_us(self) -> int:
        length = self._window.gap or self._window.every
        assert length is not None
        return length // MICROSECOND

    @property
    def _slide_us(self) -> int:
        return (self._window.slide or self._window.every or MICROSECOND) // MICROSECOND

    def _check(self) -> None:
        where = f"tables.{self._table.name}.window"
        rows = tables.load(self._spark, self._config, self._source).limit(0)
        kinds = {field.name: field.dataType for field in rows.schema.fields if field.name not in RESERVED}
        check_columns(where, self._source, [self._window.on, *self._window.group_by], kinds)
        check_time(f"{where}.on", self._source, self._window.on, kinds)
        try:
            self._computed(rows)
        except AnalysisException as error:
            raise ConfigError(f"{where}.aggregate: does not fit {self._source}: {str(error).splitlines()[0]}") from error


def check_columns(where: str, source: str, wanted: Sequence[str], kinds: dict[str, T.DataType]) -> None:
    """Raises ConfigError for a column that the source does not have."""
    for name in wanted:
        if name not in kinds:
            raise ConfigError(f"{where}: {source} has no column {name!r}; there are: {', '.join(kinds)}")


def check_time(where: str, source: str, column: str, kinds: dict[str, T.DataType]) -> None:
    """Raises ConfigError for a column that is no timestamp."""
    if not isinstance(kinds[column], T.TimestampType):
        raise ConfigError(f"{where}: {column} of {source} is {kinds[column].simpleString()}: event times have to be a timestamp")


def _is_salted(config: Config, source: str) -> bool:
    while not source.startswith("bronze."):
        source = config.table(source).sources[0]
    return config.stream(config.table(source).sources[0]).ordering == "salted"
