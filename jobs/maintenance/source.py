"""What a stream of appended rows has to see to when the table that it reads is also changed.

Delta's option skipChangeCommits passes over every commit that deletes or updates rows. For maintenance that is right: what it
deletes was read already, or is read from the old files. Passing over anybody else's change would lose it in silence.
"""

from __future__ import annotations

import json

from pyspark.sql import SparkSession

from jobs.checkpoint import SparkCheckpoint
from jobs.storage import read_text
from pipeline.errors import TableError


def check_source(spark: SparkSession, checkpoint: SparkCheckpoint, source_path: str, table: str, micro_batch: int) -> int:
    """Look at the versions of the source that a planned micro-batch covers. Returns the newest that is read whole
    after it; -1 within the rows that were there at the beginning.

    Raises TableError for a version that changed rows and is not maintenance.
    """
    end = checkpoint.ends(micro_batch)
    if end is None:
        raise TableError(f"the Spark checkpoint {checkpoint.path} has no offsets of micro-batch {micro_batch}")
    before = checkpoint.ends(micro_batch - 1)
    up_to = int(end["reservoirVersion"])
    if before is not None:  # else it begins with the table as it is
        first = int(before["reservoirVersion"]) + (1 if before.get("isStartingVersion") else 0)
        for version in range(first, up_to + (1 if int(end["index"]) >= 0 else 0)):
            text = read_text(spark, f"{source_path}/_delta_log/{version:020d}.json")
            if text is not None and (operation := changed_by_others(text)) is not None:
                raise TableError(
                    f"version {version} of {source_path} changed rows by another hand ({operation}), which {table} cannot "
                    f"follow: move its Spark checkpoint {checkpoint.path} away, and the next start merges the source as it is now"
                )
    return -1 if end.get("isStartingVersion") else up_to - 1


def changed_by_others(log_text: str) -> str | None:
    """The operation of a commit that deleted or updated rows and was none of ours; None of any other."""
    info, changes = {}, False
    for line in log_text.splitlines():
        if line.startswith('{"commitInfo"'):
            info = json.loads(line)["commitInfo"]
        elif line.startswith('{"remove"'):
            changes = changes or bool(json.loads(line)["remove"].get("dataChange"))
    if not changes or '"headrace' in str(info.get("userMetadata", "")):
        return None
    return str(info.get("operation", "unknown"))
