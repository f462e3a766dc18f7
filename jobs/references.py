"""Tables that others are joined with: the files of ``references:``, or tables of headrace.yml, read anew when they changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import tables
from jobs.commits import newest_version
from pipeline.config import Config
from pipeline.errors import ConfigError, TableError

KEYS_SHOWN = 3


@dataclass
class _Held:
    stamp: Any
    rows: DataFrame
    unique_by: set[tuple[str, ...]]


class References:
    """Reads each one once per version of it. Not thread-safe."""

    def __init__(self, spark: SparkSession, config: Config) -> None:
        self._spark, self._config = spark, config
        self._held: dict[str, _Held] = {}

    def rows(self, name: str, where: str) -> DataFrame:
        """``airlines`` or ``reference.airlines`` of ``references:``, or a table as its readers see it, as they are now.

        Raises ConfigError, beginning with ``where``, for a name that headrace.yml does not have; TableError where it is not
        there yet.
        """
        return self._now(name.removeprefix("reference."), where).rows

    def unique(self, name: str, keys: Sequence[str], where: str) -> DataFrame:
        """The same, after a look that no two of its rows have the same ``keys``: a join would multiply rows. Raises TableError
        with some of those that are there twice."""
        held = self._now(name.removeprefix("reference."), where)
        there = held.rows.columns
        for key in keys:
            if key not in there:
                raise ConfigError(f"{where}: {name} has no column {key!r}; there are: {', '.join(there)}")
        if tuple(keys) not in held.unique_by:
            counted = held.rows.dropna(subset=list(keys)).groupBy(*keys).count().where("count > 1")
            if twice := counted.orderBy(F.desc("count"), *keys).take(KEYS_SHOWN):
                shown = ", ".join(" / ".join(str(row[key]) for key in keys) for row in twice)
                raise TableError(
                    f"{where}: {name} has several rows with the same {', '.join(keys)} ({shown}, say), so the join would "
                    "multiply rows: name all columns that make its rows unique, or correct it"
                )
            held.unique_by.add(tuple(keys))
        return held.rows

    def close(self) -> None:
        for held in self._held.values():
            held.rows.unpersist()
        self._held.clear()

    def _now(self, name: str, where: str) -> _Held:
        stamp = self._stamp(name, where)
        held = self._held.get(name)
        if held is None or held.stamp != stamp:
            if held is not None:
                held.rows.unpersist()
            held = self._held[name] = _Held(stamp, self._read(name, stamp), set())
        return held

    def _stamp(self, name: str, where: str) -> Any:
        if name in self._config.references:
            return stamp(self._config.references[name])
        if name not in self._config.tables:
            there = ", ".join([*sorted(self._config.references), *sorted(self._config.tables)]) or "none"
            raise ConfigError(f"{where}: headrace.yml has no reference or table {name!r}; there are: {there}")
        held = self._held.get(name)
        newest = newest_version(self._spark, tables.table_path(self._config, name), -1 if held is None else held.stamp)
        if newest < 0:
            raise TableError(f"{where}: table {name} is not there yet: run `headrace run {name}` first")
        return newest

    def _read(self, name: str, at: Any) -> DataFrame:
        if name in self._config.references:
            return read_file(self._spark, name, self._config.references[name]).persist()  # small, and CSV is dear to read
        return tables.visible(tables.load(self._spark, self._config, name, at), self._config.table(name).layer)


def read_file(spark: SparkSession, name: str, path: Path) -> DataFrame:
    """A reference's file: Parquet (or a folder of it), or CSV with a head. Raises ConfigError where it is not there."""
    if not path.exists():
        raise ConfigError(f"references.{name}: there is no {path}")
    if path.suffix == ".parquet" or path.is_dir():
        return spark.read.parquet(str(path))
    return spark.read.csv(str(path), header=True, inferSchema=True, nullValue="NA" if _has_na(path) else "")


def stamp(path: Path) -> list[int]:
    """Changes when the file does."""
    found = path.stat() if path.exists() else None
    return [found.st_size, found.st_mtime_ns] if found else []


def _has_na(path: Path) -> bool:
    """R writes NA for what is missing; a column of numbers would else be read as text."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return any(",NA," in line or line.rstrip().endswith(",NA") for line in file)
