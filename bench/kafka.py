"""put and the consumer beside confluent-kafka with its Avro serializers; strict beside relaxed."""

from __future__ import annotations

from statistics import median

import pyarrow as pa

from bench import ours, plain
from bench.figure import Arena, Figure
from bench.schema import orders

RATE = "records/s"
PLAIN = "confluent-kafka, Avro"


def run(arena: Arena) -> list[Figure]:
    rows = orders(arena.records)
    table = pa.Table.from_pylist(rows)
    n = len(rows)
    rates: dict[str, list[float]] = {}

    for turn in range(arena.rounds + 1):  # the first warms up, and is not counted
        arena.say(f"put and consume, round {turn} of {arena.rounds}")
        stream = f"orders{turn}"
        config = arena.project(stream)
        ours_put, ours_flushed = ours.put(config, stream, rows)
        plain_put, plain_flushed = plain.put(config.connection, f"plain{turn}", rows)
        _, dicts = ours.put_many(config, stream, rows)
        _, columns = ours.put_many(config, stream, table)
        _, relaxed = ours.put(config, stream, rows, acks="relaxed")
        ours_read = ours.read(config, stream, n)
        plain_read = plain.read(config.connection, f"plain{turn}", n)
        if turn:
            seconds = {
                "ours put": ours_put,
                "plain put": plain_put,
                "ours acknowledged": ours_flushed,
                "plain acknowledged": plain_flushed,
                "dicts": dicts,
                "columns": columns,
                "relaxed": relaxed,
                "ours read": ours_read,
                "plain read": plain_read,
            }
            for name, value in seconds.items():
                rates.setdefault(name, []).append(n / value)
    middle = {name: median(values) for name, values in rates.items()}
    beside = {
        "put, until handed over": ("ours put", "plain put", PLAIN),
        "put, until all are acknowledged": ("ours acknowledged", "plain acknowledged", PLAIN),
        "put_many of dicts, until all are acknowledged": ("dicts", "plain acknowledged", PLAIN),
        "put_many of a pyarrow table, until all are acknowledged": ("columns", "plain acknowledged", PLAIN),
        "put, strict": ("ours acknowledged", "relaxed", "acks: relaxed (no barrier)"),
        "for record in consumer": ("ours read", "plain read", PLAIN),
    }
    return [Figure("kafka", name, middle[our], RATE, middle[their], who) for name, (our, their, who) in beside.items()]
