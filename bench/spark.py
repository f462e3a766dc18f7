"""Kafka → bronze, beside a plain Spark job and a delta-rs writer on the same records, and beside the ceiling: what appending the
same rows from memory takes. What a run costs besides: a micro-batch of one record, a trigger that finds nothing, a restart."""

from __future__ import annotations

from collections.abc import Callable

from bench import peer, tables
from bench.figure import Arena, Figure
from bench.peer import PEERS_PYTHON

PLAIN = "Spark, from_avro, append"


def run(arena: Arena) -> list[Figure]:
    from jobs.session import spark_session

    topics = tables.filled(arena)
    best: dict[str, float] = {}
    cached = spark_session("bench", log_file=arena.folder / "spark.log")
    try:
        for turn in range(arena.table_rounds + 1):
            arena.say(f"Kafka to bronze, round {turn} of {arena.table_rounds}")
            folder = arena.folder / f"turn-{turn}"
            ways: dict[str, Callable[[], float]] = {
                "ours": lambda: tables.ours(cached, topics.config(folder)),  # noqa: B023 - called in this turn
                "plain": lambda: tables.plain(cached, topics, folder / "plain"),  # noqa: B023
            }
            if PEERS_PYTHON.exists():
                ways["delta-rs"] = lambda: peer.delta_rs(topics, folder / "delta-rs")  # noqa: B023
            seconds = {name: way() for name, way in ways.items()}
            seconds["ceiling"] = tables.ceiling(cached, topics.config(folder), folder / "ceiling")
            tables.check(cached, topics, folder)
            for name, took in seconds.items() if turn else ():
                best[name] = min(took, best.get(name, took))
        costs = tables.costs(cached, topics.config(folder), topics.stream)
    finally:
        cached.stop()
    rate = {name: arena.table_records / took for name, took in best.items()}
    beside = [("plain", PLAIN), ("ceiling", "the ceiling: the same rows from memory"), ("delta-rs", "delta-rs, fastavro")]
    figures = [
        Figure("spark", "Kafka to bronze, best", rate["ours"], "records/s", rate[name], told)
        for name, told in beside
        if name in rate
    ]
    return [*figures, *costs, *tables.restarts(topics.config(folder), topics.stream)]
