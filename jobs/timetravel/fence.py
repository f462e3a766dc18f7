"""A fence keeps the query of a bronze table from ever writing again, at whatever point of its work it is.

It is a commit without rows under the query's own transaction id and the largest number. A write of the query that is under way
fails against it (the same id), and Delta skips every later one as a replay: no lock, no clock. The query finds out after its
write, since the newest commit is not its own. A new query has a new id and is free.
"""

from __future__ import annotations

import json

from pyspark.sql import SparkSession

from jobs.commits import FENCE, versions
from jobs.storage import read_text
from pipeline.errors import TableError

_LARGEST = str(2**62)
_LOOKED_AT_MAX = 200


def fence(spark: SparkSession, path: str, table: str, query: str) -> None:
    """Fence a query off. Done twice, the second changes nothing."""
    schema = spark.read.format("delta").load(path).schema
    (
        spark.createDataFrame([], schema)
        .write.format("delta")
        .mode("append")
        .option("txnAppId", f"{table}:{query}")
        .option("txnVersion", _LARGEST)
        .option("userMetadata", json.dumps({FENCE: query}))
        .save(path)
    )


def check_not_fenced(spark: SparkSession, path: str, table: str, query: str) -> None:
    """Raises TableError where the query was fenced off lately."""
    mark = json.dumps(json.dumps({FENCE: query}))[1:-1]
    for version in reversed(versions(spark, path)[-_LOOKED_AT_MAX:]):
        if mark in (read_text(spark, f"{path}/_delta_log/{version:020d}.json") or ""):
            raise TableError(
                f"{table} is being restored to an older version (or was, see `headrace table history {table}`), so this query "
                f"may not write to it any more, and did not. Let the restore end, or run it again; then start the job"
            )
