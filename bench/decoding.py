"""What safety on hostile bytes costs: decoding an aggregate as a consumer does, beside fastavro alone, per kind of schema.
"""

from __future__ import annotations

import decimal
import io
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import fastavro

from bench.figure import Arena, Figure
from bench.schema import ORDER, orders
from pipeline.schema.decode import AggregateDecoder
from pipeline.schema.encode import EntryEncoder, aggregate_body
from pipeline.schema.envelope import envelope_text
from pipeline.schema.value_schema import parse_schema

RECORDS = 2_000
_PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
_PRICED = ORDER | {"name": "Priced", "fields": [*ORDER["fields"], {"name": "price", "type": _PRICE}]}
_CHAIN = {
    "type": "record",
    "name": "Chain",
    "namespace": "bench",
    "fields": [*ORDER["fields"], {"name": "before", "type": ["null", "Chain"], "default": None}],
}


def run(arena: Arena) -> list[Figure]:
    """Three kinds of schema: plain fields, with a decimal, and one that contains itself."""
    rows = orders(RECORDS)
    priced = [row | {"price": decimal.Decimal(n).scaleb(-2)} for n, row in enumerate(rows)]
    rounds = 10 * arena.rounds
    return [
        *_figures("plain fields", ORDER, rows, rounds),
        *_figures("with a decimal", _PRICED, priced, rounds),
        *_figures("a record inside itself", _CHAIN, [row | {"before": row | {"before": None}} for row in rows], rounds),
    ]


def _figures(name: str, tree: dict[str, Any], rows: list[dict[str, Any]], rounds: int) -> list[Figure]:
    schema = parse_schema(tree)
    encode = EntryEncoder(schema).encode
    body = aggregate_body((seq, encode(row["customer"], None, 0, 1_700_000_000_000, None, row)) for seq, row in enumerate(rows))
    text = envelope_text(schema)
    plain = fastavro.parse_schema(json.loads(text.replace('"logicalType":"timestamp-millis"', '"unit":"ms"', 1)))
    ours, always = AggregateDecoder(text), AggregateDecoder(text, validation="always")
    ways: list[Callable[[], object]] = [
        lambda: fastavro.schemaless_reader(io.BytesIO(body), plain, None),
        lambda: ours._read(body),
        lambda: always._read(body),
    ]
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):  # in turn, in CPU time: what else runs on the machine counts for none of them
        for way, found in zip(ways, times, strict=True):
            began = time.process_time()
            way()
            found.append((time.process_time() - began) * 1_000)
    alone_ms, ours_ms, always_ms = (statistics.median(found) for found in times)
    return [
        Figure("decoding", f"{name}: {RECORDS:,} records, safe on hostile bytes", ours_ms, "ms", alone_ms, "fastavro alone"),
        Figure("decoding", f"{name}: the same after a pass over every byte", always_ms, "ms", alone_ms, "fastavro alone"),
    ]
