"""Gold: a query over current silver, computed anew when silver changed (``mode: refresh``).

    spark-submit … jobs/gold.py --config headrace.yml [--table gold.delays] [--mode continuous|available-now|10s]

The versions that a refresh read stand in its commit's metadata: as long as they (and the query) are the same, nothing is done;
a refresh that was killed is done again and gives the same rows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from typing import Any

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from jobs import crash, tables
from jobs.arguments import run_layer
from jobs.commits import FORMAT, newest_commit_of_ours, read_commit
from jobs.progress import OnProgress, TableProgress
from jobs.references import read_file, stamp
from jobs.writers import Writer
from pipeline.config import Config, TableConfig
from pipeline.errors import ConfigError, TableError

log = logging.getLogger("headrace.jobs")

# A name is replaced outside of texts and comments only; what follows a dot is a column's or another catalog's.
_SQL_PART = re.compile(
    r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`|--[^\n]*|/\*.*?\*/|(?<![\w.])(?:bronze|silver|gold|reference)\.[A-Za-z]\w*",
    re.DOTALL,
)


class GoldJob:
    """Refreshes of one gold table. One thread at a time."""

    def __init__(self, spark: SparkSession, config: Config, table: str, on_progress: OnProgress | None = None) -> None:
        self.table = config.table(table)
        self.name = table
        self._spark = spark.newSession()  # its views are its own
        self._config = config
        self._on_progress = on_progress
        self._path = tables.table_path(config, table)
        self._refreshes = 0
        self._writer = Writer(self._spark, table, tables.checkpoint_path(config, table))
        self._writer.take()
        if self.table.sql is None:
            raise ConfigError(f"tables.{table}: a gold table needs sql: and the file of its query")
        for source in self.table.sources:
            if source not in config.tables:
                raise ConfigError(f"tables.{table}.from: no table {source!r}")

    def refresh(self) -> bool:
        """Compute the table anew if a source or the query changed since. Returns whether it did.

        Raises TableError where a source is not there yet, or the query does not fit them.
        """
        text = _read(self.table)
        inputs = self._inputs(text)
        last = tables.find(self._spark, self._config, self.table, _source_text(self.table))
        commit = newest_commit_of_ours(self._spark, self._path) if last is not None else None
        if commit is not None and commit.metadata is not None and commit.metadata.get("inputs") == inputs:
            self._report(commit.version)
            return False
        rows = self._query(text, inputs["versions"])
        if last is None:
            tables.create(self._spark, self._config, self.table, _source_text(self.table), _nullable(rows.schema))
            crash.reach("gold.table_made")
        metadata = json.dumps({"headrace": FORMAT, "inputs": inputs})
        self._writer.check()
        crash.reach("gold.before_write")
        crash.reach_when_written("gold.before_commit", self._path)
        (
            rows.write.format("delta")
            .mode("overwrite")
            .option("overwriteSchema", "true")
            .option("userMetadata", metadata)
            .save(self._path)
        )
        crash.reach("gold.after_commit")
        self._refreshes += 1
        self._report(tables.version(self._spark, self._path))
        return True

    def _inputs(self, text: str) -> dict[str, Any]:
        """What the result depends on."""
        versions = {source: tables.version(self._spark, tables.table_path(self._config, source)) for source in self.table.sources}
        for source, version in versions.items():
            if version < 0:
                raise TableError(f"{self.name} is made from {source}, which is not there yet: run `headrace run {source}` first")
        references = {name: stamp(path) for name, path in sorted(self._config.references.items()) if f"reference.{name}" in text}
        return {"sql": hashlib.sha256(text.encode()).hexdigest(), "versions": versions, "references": references}

    def _query(self, text: str, versions: dict[str, int]) -> DataFrame:
        for source, version in versions.items():
            rows = tables.load(self._spark, self._config, source, version)
            tables.visible(rows, self._config.table(source).layer).createOrReplaceTempView(_view(source))
        for name, path in self._config.references.items():
            if f"reference.{name}" in text:
                read_file(self._spark, name, path).createOrReplaceTempView(_view(f"reference.{name}"))
        known = {*self.table.sources, *(f"reference.{name}" for name in self._config.references)}
        try:
            return self._spark.sql(with_views(text, known, self.name))
        except (AnalysisException, ParseException) as error:
            first = next((line for line in str(error).splitlines() if line.strip()), "")
            raise TableError(f"{self.table.sql}: the query of {self.name} does not fit its tables: {first}") from error

    def _report(self, version: int) -> None:
        commit = read_commit(self._spark, self._path, version)
        if self._on_progress is not None and commit is not None:
            self._on_progress(TableProgress(self.name, micro_batches=self._refreshes, version=version, records=commit.rows))


def with_views(text: str, known: set[str], table: str) -> str:
    """The query with every ``silver.flights`` replaced by the view that stands for it. Raises TableError for a table that the
    gold table does not name in ``from`` (or ``references``): it would not be refreshed when that one changes."""

    def view(match: re.Match[str]) -> str:
        found = match.group(0)
        if found[0] in "'\"`-/":
            return found
        if found not in known:
            raise TableError(f"the query of {table} reads {found}, which is not in its `from:` (or `references:`): add it there")
        return _view(found)

    return _SQL_PART.sub(view, text)


def _view(name: str) -> str:
    return f"headrace_{name.replace('.', '_')}"


def _read(table: TableConfig) -> str:
    assert table.sql is not None
    try:
        return table.sql.read_text("utf-8").strip().rstrip(";")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"tables.{table.name}.sql: {table.sql} cannot be read: {error}") from error


def _source_text(table: TableConfig) -> str:
    return ",".join(table.sources)


def _nullable(schema: T.StructType) -> T.StructType:
    return T.StructType([T.StructField(field.name, field.dataType, True) for field in schema.fields])


def main(arguments: list[str] | None = None) -> int:
    return run_layer("gold", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
