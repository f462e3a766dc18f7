"""Rows of bronze made by hand, for tests of what lies between bronze and silver."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from jobs import tables
from jobs.bronze import BronzeJob

AT = datetime(2026, 1, 1, tzinfo=UTC)


def with_bronze(shop: Any) -> Any:
    BronzeJob(shop.spark, shop.config, "bronze.orders").close()
    return shop


def arrive(shop: Any, *rows: tuple[int, str, int | None, str | None], after: timedelta = timedelta()) -> None:
    """Append (offset, item, number, note) to bronze in one commit, ingested ``after`` AT; a number of None is a tombstone."""
    path = tables.table_path(shop.config, "bronze.orders")
    schema = shop.spark.read.format("delta").load(path).schema
    data = [
        {
            "item": None if number is None else item, "number": number, "note": note, "_rejected": None,
            "_deleted": number is None,
            "_meta": {
                "key": item, "topic": "orders", "partition": 0, "ingested_at": AT + after,
                "order": {"generation": 0, "offset": offset, "index": 0},
            },
        }
        for offset, item, number, note in rows
    ]  # fmt: skip
    shop.spark.createDataFrame(data, schema).coalesce(1).write.format("delta").mode("append").save(path)


def expecting(shop: Any, *rules: dict[str, Any], transform: list[dict[str, Any]] | None = None, **merge: Any) -> None:
    """Give silver.orders these rules and steps."""
    shop.table_options["silver.orders"] = {
        "from": "bronze.orders", "merge": {"keys": ["item"]} | merge, "expect": list(rules), "transform": transform or [],
    }  # fmt: skip


def state(shop: Any) -> dict[str, int]:
    return {row["item"]: row["number"] for row in shop.read("silver.orders").collect()}
