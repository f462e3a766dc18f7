"""What rules cost on ingest: Kafka → bronze → silver with ten row rules on silver, beside the same without rules."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import yaml

from bench import ours
from bench.figure import Arena, Figure, paired
from bench.schema import orders, write_project
from pipeline.config import Config, load_config

RULES: list[dict[str, Any]] = [
    {"column": "order_id", "complete": True},
    {"column": "order_id", "matches": "order-[0-9]{12}"},
    {"column": "customer", "complete": True},
    {"column": "customer", "matches": "customer-[0-9]{6}"},
    {"column": "placed_at", "between": [1_600_000_000_000, None]},
    {"column": "amount", "between": [0, None], "on_fail": "quarantine"},
    {"column": "quantity", "between": [0, 10], "on_fail": "quarantine"},
    {"column": "note", "values": ["leave at door", "call first"], "on_fail": "drop"},
    {"rule": "quantity * amount >= 0"},
    {"rule": "length(customer) < length(order_id)", "on_fail": "stop"},
]

FIRST_RECORDS = 1_000


def run(arena: Arena) -> list[Figure]:
    from jobs.session import spark_session

    rows = orders(arena.records)
    rates: dict[str, list[float]] = {"rules": [], "none": []}
    spark = spark_session("bench", log_file=arena.folder / "spark.log")
    try:
        for turn in range(arena.rounds + 1):
            arena.say(f"Kafka to silver with rules and without, round {turn} of {arena.rounds}")
            stream = f"ruled{turn}"
            configs = {name: _project(arena.folder / f"{stream}-{name}", stream, name == "rules") for name in rates}
            ours.put(configs["rules"], stream, rows[:FIRST_RECORDS])
            for config in configs.values():
                _ingest(spark, config)  # makes the tables, which happens once in their lives
            ours.put(configs["rules"], stream, rows)
            for name in sorted(rates, reverse=bool(turn % 2)):  # neither always goes first
                seconds = _ingest(spark, configs[name])
                if turn:
                    rates[name].append(len(rows) / seconds)
    finally:
        spark.stop()
    with_rules, without = paired(rates["rules"], rates["none"])
    return [
        Figure("quality", "Kafka to silver with ten row rules", with_rules, "records/s", without, "without rules"),
        Figure("quality", "cost of ten row rules", 100 * (without / with_rules - 1), "% of the time", 15.0, "promised at most"),
    ]


def _ingest(spark: Any, config: Config) -> float:
    from jobs.run import run_tables

    started = time.perf_counter()
    run_tables(spark, config, ["bronze.orders", "silver.orders"], "available-now")
    return time.perf_counter() - started


def _project(folder: Path, stream: str, with_rules: bool) -> Config:
    file = write_project(folder, stream, table=True)
    data = yaml.safe_load(file.read_text())
    data["tables"]["silver.orders"] = {
        "from": "bronze.orders",
        "merge": {"keys": ["order_id"]},
        "expect": RULES if with_rules else [],
    }
    file.write_text(yaml.safe_dump(data))
    return load_config(file)
