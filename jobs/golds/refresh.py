"""A gold table that a query makes: computed anew when something it reads changed, or only for the keys that changed.

``mode: incremental``: the changes of a source since the last commit give the keys concerned (of the old images of rows as of
the new ones), the query runs over the rows of those keys, and its result replaces theirs: updates and deletes give the same
table as a full refresh. A full refresh it is whenever that cannot be shown: for the first time, after the query, a reference,
or a source that the query reads as a whole changed, or where the change data feed is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import Any

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import tables
from jobs.golds.commit import Metadata, Output
from jobs.golds.keyed import keyed
from jobs.golds.keys import Keys, kept
from jobs.golds.multiplying import multiplying
from jobs.golds.plan import optimized, stand_in
from jobs.golds.query import LazyViews, Query
from jobs.golds.sources import Position, Sources, feed_is_gone
from jobs.references import read_file, stamp
from pipeline.config import Config, TableConfig
from pipeline.errors import ConfigError, TableError

log = logging.getLogger("headrace.jobs")


class QueryGold:
    """One thread at a time."""

    def __init__(self, spark: SparkSession, config: Config, table: TableConfig) -> None:
        self._spark, self._config, self._table = spark, config, table
        self._query = Query(spark, config, table)
        self._sources = Sources(spark, config, table.name)
        self._output = Output(spark, config, table)
        self._keyed: Mapping[str, Sequence[str] | None] | None = None
        self._references: Sequence[str] = ()
        self._checked: Any = None
        self._is_prepared = False

    def prepare(self) -> None:
        """Have the sources keep their changes. Raises TableError for one that is not there yet."""
        if self._table.mode == "incremental" and not self._is_prepared:
            self._sources.follow_changes()
        self._is_prepared = True

    def step(self) -> bool:
        """Bring the table up to its sources. Returns whether there was anything to do.

        Raises TableError where a source is not there yet, or the query does not fit them.
        """
        self.prepare()
        now = self._sources.now()
        self._check()
        inputs = self._inputs(now)
        last = self._output.metadata()
        if last is not None and last.get("inputs") == inputs:
            return False
        why = self._why_anew(last, inputs, now)
        if why is None:
            try:
                self._recompute(_positions(last or {}), now, inputs)
                return True
            except (TableError, PySparkException) as error:
                if not feed_is_gone(error):
                    raise
                why = "the changes of a source can no longer be read"
        if last is not None and self._table.mode == "incremental":
            log.info("%s is computed anew: %s", self._table.name, why)
        self._output.overwrite(self._query.rows(self._views(now)), {"inputs": inputs})
        return True

    # -- what it depends on ------------------------------------------------------------------------------------------

    def _inputs(self, now: Mapping[str, Position]) -> dict[str, Any]:
        references = {name: stamp(self._config.references[name]) for name in self._references}
        mode = self._table.mode or "refresh"
        positions = {name: at.to_json() for name, at in now.items()}
        return {"query": self._query.digest, "how": [mode, *self._table.keys], "positions": positions, "references": references}

    def _why_anew(self, last: Metadata | None, inputs: Mapping[str, Any], now: Mapping[str, Position]) -> str | None:
        """Why the changes are not enough; None if they are."""
        if self._table.mode != "incremental":
            return "mode is refresh"
        if last is None or "inputs" not in last:
            return "it is new"
        before = last["inputs"]
        for key, what in (("query", "its query"), ("how", "its mode or keys"), ("references", "a reference table")):
            if before.get(key) != inputs[key]:
                return f"{what} changed"
        assert self._keyed is not None
        for name, at in now.items():
            earlier = Position.from_json(before["positions"][name]) if name in before["positions"] else None
            if earlier is None or not at.follows(earlier):
                return f"{name} was made anew"
            if self._keyed.get(name) is None and at != earlier:
                return f"{name} changed, which the query does not read by {', '.join(self._table.keys)}"
        rows = self._query.rows(self._views(now))
        if _kinds(rows) != _kinds(self._output.stored()):
            return "its columns changed"
        return None

    # -- by changed keys ---------------------------------------------------------------------------------------------

    def _recompute(self, since: Mapping[str, Position], now: Mapping[str, Position], inputs: Mapping[str, Any]) -> None:
        by = {name: texts for name, texts in (self._keyed or {}).items() if texts is not None and name in now}
        changed = [
            self._sources.changes(name, since[name], now[name]).select(
                *(F.expr(text).alias(key) for text, key in zip(texts, self._table.keys, strict=True))
            )
            for name, texts in by.items()
            if since[name] != now[name]
        ]
        if not changed:
            self._output.note({"inputs": inputs})
            return
        with kept(reduce(DataFrame.unionAll, changed)) as keys:
            if not keys.count:
                self._output.note({"inputs": inputs})
                return
            only = {name: partial(self._only, keys, texts) for name, texts in by.items()}
            rows = self._query.rows(self._views(now, only))
            # Rows of other keys there are none: the plan says so. Left in, a mistake there would repeat them.
            columns = [F.col(f"`{name}`") for name in self._table.keys]
            self._output.replace(keys.having(rows, columns), keys, {"inputs": inputs})

    @staticmethod
    def _only(keys: Keys, texts: Sequence[str], rows: DataFrame) -> DataFrame:
        return keys.having(rows, [F.expr(text) for text in texts])

    def _views(self, now: Mapping[str, Position], only: Mapping[str, Any] | None = None) -> LazyViews:
        def source(name: str) -> DataFrame:
            rows = self._sources.rows(name, now[name])
            return only[name](rows) if only and name in only else rows

        readers = {name: partial(source, name) for name in self._sources.names}
        return LazyViews(readers | self._reference_readers())

    def _reference_readers(self) -> dict[str, Any]:
        return {f"reference.{n}": partial(read_file, self._spark, n, path) for n, path in sorted(self._config.references.items())}

    # -- before it runs ----------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Against the columns that the sources have now; once, until those change."""
        schemas = {name: self._visible(name).schema for name in self._sources.names}
        if self._checked == schemas:
            return
        stand_ins = {name: partial(stand_in, self._spark, name, schema) for name, schema in schemas.items()}
        views = LazyViews(stand_ins | {name: partial(self._reference_stand_in, name) for name in self._reference_readers()})
        rows = self._query.rows(views)
        self._references = sorted(name.removeprefix("reference.") for name in views.used if name.startswith("reference."))
        for join in multiplying(rows, self._is_unique):
            on = f"on {', '.join(join.columns)}" if join.columns else "without equal columns"
            raise TableError(
                f"{self._query.what}: {self._table.name} joins {' and '.join(join.sources)} {on}, and neither side has one "
                "row only for these: the join would multiply rows. Join on the keys of one side, or aggregate it first"
            )
        if self._table.mode == "incremental":
            self._keyed = self._checked_keys(rows)
        self._checked = schemas

    def _checked_keys(self, rows: DataFrame) -> Mapping[str, Sequence[str] | None]:
        for key in self._table.keys:
            if key not in rows.columns:
                raise ConfigError(
                    f"tables.{self._table.name}.keys: the query gives no column {key!r}; it gives: {', '.join(rows.columns)}"
                )
        found = keyed(rows, self._table.keys)
        for name, texts in found.items():
            if texts is not None and name in self._sources.names and not self._can_apply(name, texts):
                found[name] = None
        if not any(texts is not None for name, texts in found.items() if name in self._sources.names):
            raise ConfigError(
                f"tables.{self._table.name}.keys: {', '.join(self._table.keys)}: a changed row of "
                f"{', '.join(self._sources.names)} does not say which of these it concerns. Name columns that the result is "
                "grouped by and that are made from one row's columns alone, or use `mode: refresh`"
            )
        return found

    def _can_apply(self, name: str, texts: Sequence[str]) -> bool:
        try:
            optimized(self._visible(name).select(*(F.expr(text) for text in texts)))
        except (AnalysisException, PySparkException):
            return False
        return True

    def _visible(self, name: str) -> DataFrame:
        return tables.visible(tables.load(self._spark, self._config, name), self._config.table(name).layer)

    def _reference(self, source: str) -> DataFrame:
        name = source.removeprefix("reference.")
        return read_file(self._spark, name, self._config.references[name])

    def _reference_stand_in(self, name: str) -> DataFrame:
        rows = self._reference(name)
        return stand_in(self._spark, name, rows.schema)

    def _is_unique(self, source: str, columns: Sequence[str]) -> bool | None:
        if source.startswith("reference."):
            rows = self._reference(source)
            if not columns:
                return rows.limit(2).count() < 2
            names = [F.col(f"`{name}`") for name in columns]
            repeated = rows.dropna(subset=list(columns)).groupBy(*names).count().where("count > 1")
            return repeated.limit(1).count() == 0
        configured = self._config.table(source)
        if configured.layer == "silver" and configured.merge is not None:
            return set(configured.merge.keys) <= set(columns) and configured.merge.scd == 1
        return False if configured.layer == "bronze" else None


def _positions(last: Metadata) -> dict[str, Position]:
    return {name: Position.from_json(at) for name, at in last["inputs"]["positions"].items()}


def _kinds(rows: DataFrame) -> list[tuple[str, str]]:
    return [(field.name, field.dataType.simpleString()) for field in rows.schema.fields]
