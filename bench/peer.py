"""One peer puts orders, or writes them to a Delta table; run as a program by its own interpreter (`.venv-peers`), since peers
pin other clients than ours.

    python -m bench.peer aiokafka|quixstreams BOOTSTRAP TOPIC COUNT
    python -m bench.peer delta-rs BOOTSTRAP TOPIC COUNT FOLDER

Prints JSON: seconds until the last was acknowledged (or is in the table), and processor seconds. The same settings as
everybody: acks=all, lz4, 100 ms of linger, batches of 256 KiB, Avro by fastavro.
"""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.schema import ORDER, orders

if TYPE_CHECKING:
    from bench.tables import Topics

PEERS_PYTHON = Path(".venv-peers/bin/python")
COMMIT_RECORDS = 250_000  # of the Delta writer: about as many as a micro-batch of ours has
LINGER_MS = 100
BATCH_BYTES = 262_144


async def _aiokafka(bootstrap: str, topic: str, rows: list[dict[str, Any]]) -> None:
    import fastavro
    from aiokafka import AIOKafkaProducer

    schema: Any = fastavro.parse_schema(ORDER)
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, compression_type="lz4", linger_ms=LINGER_MS,
        max_batch_size=BATCH_BYTES,
    )  # fmt: skip
    await producer.start()
    try:
        pending = []
        for row in rows:
            out = io.BytesIO()
            out.write(b"\x00\x00\x00\x00\x01")
            fastavro.schemaless_writer(out, schema, row)
            pending.append(await producer.send(topic, out.getvalue(), key=row["customer"].encode()))
        await producer.flush()
        await asyncio.gather(*pending)
    finally:
        await producer.stop()


def _quixstreams(bootstrap: str, topic: str, rows: list[dict[str, Any]]) -> None:
    from quixstreams import Application
    from quixstreams.models.serializers.avro import AvroSerializer

    application = Application(
        broker_address=bootstrap,
        loglevel=None,
        producer_extra_config={
            "acks": "all", "enable.idempotence": True, "compression.type": "lz4", "linger.ms": LINGER_MS,
            "batch.size": BATCH_BYTES, "queue.buffering.max.messages": 1_000_000,
        },
    )  # fmt: skip
    serialized = application.topic(topic, value_serializer=AvroSerializer(ORDER))
    failed: list[Any] = []

    def delivered(error: Any, _: Any) -> None:
        if error is not None:
            failed.append(error)

    with application.get_producer() as producer:
        for row in rows:
            message = serialized.serialize(key=row["customer"], value=row)
            producer.produce(topic, message.value, message.key, on_delivery=delivered)
        producer.flush(60)
    assert not failed, failed[0]


def _delta_rs(bootstrap: str, topic: str, count: int, folder: str) -> None:
    import fastavro
    import pyarrow as pa
    from confluent_kafka import Consumer
    from deltalake import write_deltalake

    schema: Any = fastavro.parse_schema(ORDER)
    names = [field["name"] for field in ORDER["fields"]]
    settings = {"bootstrap.servers": bootstrap, "group.id": f"delta-rs-{time.time_ns()}", "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    rows: list[dict[str, Any]] = []
    written = 0
    while written < count:
        for message in consumer.consume(10_000, 1.0):
            body = io.BytesIO(message.value())
            body.seek(5)
            rows.append(fastavro.schemaless_reader(body, schema, schema))
        if len(rows) >= COMMIT_RECORDS or written + len(rows) == count:
            write_deltalake(folder, pa.table({name: [row[name] for row in rows] for name in names}), mode="append")
            written += len(rows)
            rows = []
    consumer.close()


def delta_rs(topics: Topics, folder: Path) -> float:
    """Seconds until the records of the plain topic are in a table made by delta-rs."""
    bootstrap = topics.config(folder.parent).connection.bootstrap
    command = [str(PEERS_PYTHON), "-m", "bench.peer", "delta-rs", bootstrap, topics.plain, str(topics.records), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main() -> None:
    peer, bootstrap, topic, count, *folder = sys.argv[1:]
    rows = [] if folder else orders(int(count))
    started, processor = time.perf_counter(), time.process_time()
    if peer == "delta-rs":
        _delta_rs(bootstrap, topic, int(count), folder[0])
    elif peer == "aiokafka":
        asyncio.run(_aiokafka(bootstrap, topic, rows))
    else:
        _quixstreams(bootstrap, topic, rows)
    seconds = {"seconds": time.perf_counter() - started, "processor_s": time.process_time() - processor}
    sys.stdout.write(json.dumps(seconds) + "\n")


if __name__ == "__main__":
    main()
