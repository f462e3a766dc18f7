"""Compaction: many small files into few, by OPTIMIZE; of a table with cluster_by also sorted so that queries read fewer of them.

It changes no row (dataChange is false), so streams that read the table see nothing. Beside appends it never conflicts; beside a
MERGE one of the two has to begin again.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import SparkSession

from jobs.maintenance.statements import session, statement, turn

FILE_BYTES = 128 * 1024 * 1024
FILE_SMALL_BYTES = 96 * 1024 * 1024
"""A file is written anew only below this: else each run would write all of the table again."""
CLUSTER_BYTES = 4 * 1024 * 1024 * 1024
"""A group of clustered files above this is left as it is."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """Files that were replaced, and those that replace them."""

    removed: int = 0
    added: int = 0


def compact(spark: SparkSession, path: str) -> Compacted:
    """Bring small files together."""
    own = session(
        spark,
        {"step": "compaction"},
        {
            "spark.databricks.delta.optimize.maxFileSize": str(FILE_BYTES),
            "spark.databricks.delta.optimize.minFileSize": str(FILE_SMALL_BYTES),
            "spark.databricks.delta.optimize.clustering.mergeStrategy.minCubeSize.threshold": str(CLUSTER_BYTES),
        },
    )
    with turn(path):
        metrics = statement(own, f"OPTIMIZE delta.`{path}`")[0]["metrics"]
    return Compacted(int(metrics["numFilesRemoved"]), int(metrics["numFilesAdded"]))
