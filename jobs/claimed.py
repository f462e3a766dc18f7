"""Records that lie in the claim store, in place of the references that their messages carry (pipeline/claims).

Only the accepted messages that carry a reference go through Python, in the tasks, one object at a time: the store is whatever
fsspec knows, which the JVM does not. What comes back is decoded with the others. An object that is missing or was changed is a
rejected row with the reference; a store that does not answer makes the micro-batch be tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.survey import Plan, with_claims
from pipeline.config import Claims, StreamConfig
from pipeline.errors import ClaimStoreError, ConfigError, DecodeError

_PLACE = ["topic", "partition", "offset"]
_NO_STORE = "the record lies in a claim store, and the stream has none here: set `claims: {url: …}`"
Fetch = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]


@contextmanager
def resolved(raw: DataFrame, plan: Plan, stream: StreamConfig) -> Iterator[tuple[DataFrame, Plan]]:
    """The messages with their records in place, and the plan that says which of them could not be had; both as they are where
    no message carries a reference.

    Raises ClaimStoreError while the store does not answer, ConfigError where what reads it is not installed.
    """
    if not plan.claims:
        yield raw, plan
        return
    claims = {(one.topic, one.partition, one.offset): one for one in plan.claims}
    places = F.broadcast(raw.sparkSession.createDataFrame(sorted(claims), "topic string, partition int, offset long"))
    carried = raw.join(places, _PLACE, "left_semi").select(*raw.columns)
    columns = ", ".join(f"`{field.name}` {field.dataType.simpleString()}" for field in raw.schema.fields)
    fetched = carried.mapInArrow(_fetch(stream.claims), f"{columns}, problem string, away string")
    fetched = fetched.persist(StorageLevel.MEMORY_AND_DISK)  # asked once: the store may change between two looks
    try:
        found = fetched.select(*_PLACE, F.substring("value", 1, 5).alias("prefix"), "problem", "away").collect()
        for row in found:
            if row["away"] is not None:
                raise ClaimStoreError(row["away"])
        here = [
            replace(
                claims[row["topic"], row["partition"], row["offset"]],
                prefix=None if row["problem"] else bytes(row["prefix"]),
                problem=row["problem"],
            )
            for row in found
        ]
        others = raw.join(places, _PLACE, "left_anti").select(*raw.columns)
        yield others.union(fetched.select(*raw.columns)), with_claims(plan, here)
    finally:
        fetched.unpersist()


def _fetch(claims: Claims | None) -> Fetch:
    """For the tasks: rows with the object in place of the reference, or with why not."""
    if claims is not None:
        try:
            import fsspec  # noqa: F401 - an optional extra; better said here than by a task
        except ImportError as error:
            raise ConfigError("the stream has records in a claim store: install `headrace[claims]` where the jobs run") from error

    def fetch(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        store: Any = None
        for batch in batches:
            for index in range(batch.num_rows):
                row = batch.slice(index, 1)
                value, problem, away = row["value"][0].as_py(), None, None
                try:
                    if claims is None:
                        raise DecodeError(_NO_STORE)
                    from pipeline.claims.store import ClaimStore, Reference

                    store = store or ClaimStore(claims)
                    value = store.get(Reference.decode(value))
                except DecodeError as error:
                    problem = str(error)
                except ClaimStoreError as error:
                    away = str(error)
                columns = dict(zip(row.schema.names, row.columns, strict=True))
                columns |= {"value": pa.array([value], pa.binary())}
                columns |= {"problem": pa.array([problem], pa.string()), "away": pa.array([away], pa.string())}
                yield pa.RecordBatch.from_pydict(columns)

    return fetch
