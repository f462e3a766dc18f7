"""The record that every figure uses: six fields, about 60 bytes in Avro."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "bench",
    "fields": [
        {"name": "order_id", "type": "string"},
        {"name": "customer", "type": "string"},
        {"name": "placed_at", "type": "long"},
        {"name": "amount", "type": "double"},
        {"name": "quantity", "type": "int"},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}

RAW: dict[str, Any] = {"type": "record", "name": "Raw", "namespace": "bench", "fields": [{"name": "value", "type": "bytes"}]}


def orders(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Orders of a thousand customers."""
    return [
        {
            "order_id": f"order-{n:012d}",
            "customer": f"customer-{n % 1000:06d}",
            "placed_at": 1_700_000_000_000 + n,
            "amount": n * 0.25,
            "quantity": n % 9,
            "note": None if n % 3 else "leave at door",
        }
        for n in range(first, first + count)
    ]


def write_project(
    folder: Path, stream: str, table: bool = False, schema: dict[str, Any] = ORDER, aggregation: str | None = None
) -> Path:
    """A headrace.yml with one stream of orders, or of records of another schema; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "order.avsc").write_text(json.dumps(schema))
    tables = f"tables:\n  bronze.orders: {{from: {stream}}}\n" if table else ""
    options = ", key: customer" if schema is ORDER else ""
    options += f", aggregation: {aggregation}" if aggregation else ""
    text = f"profile: embedded\nwarehouse: warehouse\nstreams:\n  {stream}: {{schema: order.avsc, shards: 4{options}}}\n"
    file = folder / "headrace.yml"
    file.write_text(text + tables)
    return file
