"""Kafka → bronze beside a plain Spark job on the same records."""

from __future__ import annotations

from statistics import median

from bench import ours, plain, tables
from bench.figure import Arena, Figure
from bench.schema import orders


def run(arena: Arena) -> list[Figure]:
    from jobs.session import spark_session

    rows = orders(arena.records)
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    spark = spark_session("bench", log_file=arena.folder / "spark.log")
    try:
        for turn in range(arena.rounds + 1):
            arena.say(f"Kafka to bronze, round {turn} of {arena.rounds}")
            stream = f"tabled{turn}"
            config = arena.project(stream, table=True)
            ours.put(config, stream, rows)
            plain.put(config.connection, f"plain-{stream}", rows)
            mine = tables.ours(spark, config)
            theirs = tables.plain(spark, config, f"plain-{stream}", str(arena.folder / f"plain-{turn}"))
            if turn:
                rates["ours"].append(len(rows) / mine)
                rates["plain"].append(len(rows) / theirs)
    finally:
        spark.stop()
    plain_way = "Spark, from_avro, append"
    return [Figure("spark", "Kafka to bronze", median(rates["ours"]), "records/s", median(rates["plain"]), plain_way)]
