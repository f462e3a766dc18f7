"""One peer puts orders; run as a program by its own interpreter (`.venv-peers`), since peers pin other clients than ours.

    python -m bench.peer aiokafka|quixstreams BOOTSTRAP TOPIC COUNT

Prints JSON: seconds until the last was acknowledged, and processor seconds. The same settings as everybody: acks=all, lz4,
100 ms of linger, batches of 256 KiB, Avro by fastavro.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from typing import Any

from bench.schema import ORDER, orders

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


def main() -> None:
    peer, bootstrap, topic, count = sys.argv[1:]
    rows = orders(int(count))
    started, processor = time.perf_counter(), time.process_time()
    if peer == "aiokafka":
        asyncio.run(_aiokafka(bootstrap, topic, rows))
    else:
        _quixstreams(bootstrap, topic, rows)
    seconds = {"seconds": time.perf_counter() - started, "processor_s": time.process_time() - processor}
    sys.stdout.write(json.dumps(seconds) + "\n")


if __name__ == "__main__":
    main()
