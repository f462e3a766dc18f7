"""What differs between two versions of a table: rows added, removed and changed, by key.

Silver is compared by its merge keys, bronze by the records' positions, gold by its configured keys; a table without keys row by
row, so that a changed row counts as one removed and one added. Rows are compared as `headrace` shows them: a deleted row of
silver is not there. Where the change data feed was on for all versions in between, only the keys that it names are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import tables
from jobs.commits import read_checksum
from jobs.tables import META
from pipeline.config import Config, TableConfig
from pipeline.errors import TableError

POSITION = ("topic", "partition", "offset", "index")
FEED_PROPERTY = "delta.enableChangeDataFeed"


@dataclass(frozen=True, slots=True)
class Difference:
    """``keys`` are the columns that rows were told apart by (empty: whole rows). Samples are rows as mappings, in the order of
    the keys; a changed one has ``before`` and ``after``, with the columns that differ."""

    table: str
    before: int
    after: int
    keys: tuple[str, ...]
    feed: bool
    added: int
    removed: int
    changed: int
    samples: dict[str, list[dict[str, Any]]]


def diff(spark: SparkSession, config: Config, table: str, before: int, after: int, sample: int = 5) -> Difference:
    """Compare two versions. Raises TableError where one cannot be read any more."""
    configured = config.table(table)
    sides = [_rows(spark, config, configured, version) for version in (before, after)]
    keys = _keys(configured, sides[1])
    try:
        changed_keys = _fed(spark, config, configured, keys, before, after)
        if changed_keys is not None:
            sides = [side.join(changed_keys, _same(side, changed_keys, keys), "left_semi") for side in sides]
        found = _by_key(sides, keys, sample) if keys else _by_row(sides, sample)
    except PySparkException as error:
        raise _gone(table, before, after, error) from error
    except Exception as error:
        if "FileNotFound" in str(error) or "FILE_NOT_EXIST" in str(error):
            raise _gone(table, before, after, error) from error
        raise
    (added, removed, changed), samples = found
    return Difference(table, before, after, keys, changed_keys is not None, added, removed, changed, samples)


def _rows(spark: SparkSession, config: Config, table: TableConfig, version: int) -> DataFrame:
    try:
        rows = tables.visible(tables.load(spark, config, table.name, version), table.layer)
    except PySparkException as error:
        raise TableError(f"version {version} of {table.name} cannot be read: {_line(error)}") from error
    if table.layer == "bronze":
        position = [F.col(f"{META}.{'order.' if n in ('offset', 'index') else ''}{n}").alias(n) for n in POSITION]
        rows = rows.select(*position, *(name for name in rows.columns if name != META))
    maps = [field.name for field in rows.schema.fields if '"map"' in field.dataType.json()]
    return rows.withColumns({name: F.to_json(name) for name in maps})  # maps cannot be compared


def _keys(table: TableConfig, rows: DataFrame) -> tuple[str, ...]:
    if table.layer == "bronze":
        return POSITION
    keys = table.merge.keys if table.merge else getattr(table, "keys", [])
    return tuple(keys) if set(keys) <= set(rows.columns) else ()


def _fed(
    spark: SparkSession, config: Config, table: TableConfig, keys: Sequence[str], before: int, after: int
) -> DataFrame | None:
    """The keys that the change data feed names between the versions; None where it does not cover them all, or is no help."""
    path = tables.table_path(config, table.name)
    if not keys or table.layer == "bronze" or not 0 <= before < after:
        return None
    for version in (before, after):  # on at both ends: switching it is rare, and Delta refuses a range with a gap
        noted = read_checksum(spark, path, version)
        if noted is None or (noted["metadata"].get("configuration") or {}).get(FEED_PROPERTY) != "true":
            return None
    feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", before + 1)
    try:
        return feed.option("endingVersion", after).load(path).select(*keys).distinct()
    except PySparkException:
        return None


def _by_key(sides: Sequence[DataFrame], keys: Sequence[str], sample: int) -> tuple[tuple[int, int, int], dict[str, Any]]:
    values = [name for name in dict.fromkeys([*sides[0].columns, *sides[1].columns]) if name not in keys]
    old, new = (_packed(side, keys, values).alias(name) for side, name in zip(sides, ("old", "new"), strict=True))
    both = old.join(new, _same_alias(keys), "full_outer").select(
        *(F.coalesce(F.col(f"new.{key}"), F.col(f"old.{key}")).alias(key) for key in keys),
        F.col("old.values").alias("before"),
        F.col("new.values").alias("after"),
    )
    there, here = F.col("before").isNotNull(), F.col("after").isNotNull()
    kind = F.when(~there, "added").when(~here, "removed").when(~F.col("before").eqNullSafe(F.col("after")), "changed")
    judged = both.withColumn("kind", kind).where("kind IS NOT NULL").persist()
    try:
        counted = {row["kind"]: row["count"] for row in judged.groupBy("kind").count().collect()}
        samples = {}
        for name in counted:
            first = judged.where(F.col("kind") == name).orderBy(*keys).limit(sample).collect()
            samples[name] = [_shown(row.asDict(recursive=True), keys) for row in first]
    finally:
        judged.unpersist()
    return (counted.get("added", 0), counted.get("removed", 0), counted.get("changed", 0)), samples


def _by_row(sides: Sequence[DataFrame], sample: int) -> tuple[tuple[int, int, int], dict[str, Any]]:
    common = [name for name in sides[1].columns if name in sides[0].columns]
    old, new = (side.select(*common) for side in sides)
    added, removed = new.exceptAll(old).persist(), old.exceptAll(new).persist()
    try:
        samples = {
            name: [row.asDict(recursive=True) for row in rows.limit(sample).collect()]
            for name, rows in (("added", added), ("removed", removed))
        }
        return (added.count(), removed.count(), 0), {name: rows for name, rows in samples.items() if rows}
    finally:
        added.unpersist()
        removed.unpersist()


def _packed(rows: DataFrame, keys: Sequence[str], values: Sequence[str]) -> DataFrame:
    """Keys and one struct of all other columns; a column that a side lacks is null there."""
    there = [F.col(name) if name in rows.columns else F.lit(None).alias(name) for name in values]
    return rows.select(*keys, F.struct(F.lit(True).alias("_"), *there).alias("values"))


def _same_alias(keys: Sequence[str]) -> Column:
    return reduce(lambda a, b: a & b, (F.col(f"old.{key}").eqNullSafe(F.col(f"new.{key}")) for key in keys))


def _same(rows: DataFrame, others: DataFrame, keys: Sequence[str]) -> Column:
    return reduce(lambda a, b: a & b, (rows[key].eqNullSafe(others[key]) for key in keys))


def _shown(row: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    before, after = ({k: v for k, v in (row[side] or {}).items() if k != "_"} for side in ("before", "after"))
    key = {name: row[name] for name in keys}
    if row["kind"] != "changed":
        return key | (after or before)
    differs = [name for name in after if before.get(name) != after[name]]
    return key | {"before": {name: before.get(name) for name in differs}, "after": {name: after[name] for name in differs}}


def _gone(table: str, before: int, after: int, error: Exception) -> TableError:
    return TableError(
        f"versions {before} and {after} of {table} cannot be compared: VACUUM has removed files of theirs, or the log does not "
        f"reach back so far ({_line(error)})"
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
