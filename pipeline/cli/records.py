"""headrace produce and headrace consume: records as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from pipeline.cli.output import plain, print_json, say
from pipeline.config import load_config
from pipeline.consume.consumer import Consumer
from pipeline.errors import ConfigError, RecordError
from pipeline.model.record import Record
from pipeline.produce.producer import Producer

LINE_BYTES_MAX = 16 << 20


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(produce)
    app.command()(consume)


def produce(
    stream: Annotated[str, typer.Argument(help="The stream's name in headrace.yml.")],
    source: Annotated[str, typer.Option("--from", help="A file of JSON lines, or - for standard input.")] = "-",
    key: Annotated[str | None, typer.Option(help="Field of the partition key; default: the stream's `key`.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the producer: the same file put again makes no repeats.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Put the lines of a file into a stream, each a JSON object. A bad line stops it, naming the line."""
    settings = load_config().stream(stream)
    column = key or settings.key
    if column is None:
        raise ConfigError(f"stream {stream} has no `key:` in headrace.yml: name the field with --key")
    count = 0
    with _lines(source) as lines, Producer(stream, name=name) as producer:
        for number, row in _objects(lines, source):
            if column not in row:
                raise ConfigError(f"{source}:{number}: no field {column!r} to take the partition key from")
            try:
                producer.put(row, str(row[column]), position=number - 1 if name else None)
            except RecordError as error:
                raise ConfigError(f"{source}:{number}: {error}; the {count} lines before are in the stream") from error
            count += 1
        producer.flush()
        acknowledged = producer.stats.records_acknowledged
    if as_json:
        print_json({"stream": stream, "acknowledged": acknowledged})
    else:
        say(f"{acknowledged:,} records acknowledged by stream {stream}.")


def consume(
    stream: Annotated[str, typer.Argument(help="The stream's name in headrace.yml.")],
    group: Annotated[str, typer.Option(help="The consumer group: it goes on where it stopped.")],
    maximum: Annotated[int | None, typer.Option("--max", min=1, help="Stop after so many records.")] = None,
    start: Annotated[str, typer.Option(help="Where a new group begins: earliest or latest.")] = "earliest",
) -> None:
    """Print a stream's records as JSON lines. A line counts as handled once it is written."""

    def handle(record: Record) -> None:
        print_json(plain(_shown(record)))

    with Consumer(stream, group=group, start=start) as consumer:
        try:
            consumer.run(handle, retries=0, on_failure="stop", max_records=maximum)
        except KeyboardInterrupt:
            consumer.stop()


def _shown(record: Record) -> dict[str, Any]:
    return {
        "key": record.key,
        "value": record.value,
        "id": record.id,
        "shard": record.shard,
        "order": [record.order.generation, record.order.offset, record.order.index],
        "producer": record.producer,
        "seq": record.seq,
        "produced_at_ms": record.produced_at_ms,
    }


@contextmanager
def _lines(source: str) -> Iterator[TextIO]:
    if source == "-":
        yield sys.stdin
        return
    try:
        file = Path(source).open(encoding="utf-8")  # noqa: SIM115 - closed below, after the caller is done
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}") from None
    with file:
        yield file


def _objects(lines: TextIO, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(line) > LINE_BYTES_MAX:
            raise ConfigError(f"{source}:{number}: longer than {LINE_BYTES_MAX:,} characters")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise ConfigError(f"{source}:{number}: not JSON; one object a line is expected") from None
        if not isinstance(row, dict):
            raise ConfigError(f"{source}:{number}: a JSON object is expected, not {type(row).__name__}")
        yield number, row
