"""One peer reads orders, plain messages in Confluent's framing; run as a program by the peers' own interpreter (`.venv-peers`).

    python -m bench.peer_reading aiokafka|quixstreams|faststream BOOTSTRAP TOPIC COUNT

Prints JSON: seconds from the first to the last record, each decoded by fastavro as its users would.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from typing import Any

import fastavro

from bench.schema import ORDER

FRAME_BYTES = 5
_SCHEMA: Any = fastavro.parse_schema(ORDER)


class Watch:
    """Notes when the first and the last of ``count`` records were decoded."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._started = self.seconds = 0.0

    def decoded(self, raw: bytes) -> bool:
        """Decode one; whether it was the last."""
        self._started = self._started or time.perf_counter()
        order: Any = fastavro.schemaless_reader(io.BytesIO(raw[FRAME_BYTES:]), _SCHEMA, None)
        assert order["order_id"]
        self._left -= 1
        if self._left:
            return False
        self.seconds = time.perf_counter() - self._started
        return True


async def _aiokafka(bootstrap: str, topic: str, watch: Watch) -> None:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id="aiokafka", auto_offset_reset="earliest")
    await consumer.start()
    try:
        async for message in consumer:
            if watch.decoded(message.value):
                return
    finally:
        await consumer.stop()


def _quixstreams(bootstrap: str, topic: str, watch: Watch) -> None:
    from quixstreams import Application

    application = Application(
        broker_address=bootstrap,
        consumer_group="quixstreams",
        auto_offset_reset="earliest",
        loglevel=None,
        auto_create_topics=False,
    )
    frame = application.dataframe(application.topic(topic, value_deserializer="bytes"))

    def handle(raw: bytes) -> None:
        if watch.decoded(raw):
            application.stop()

    frame.update(handle)
    application.run()


async def _faststream(bootstrap: str, topic: str, watch: Watch) -> None:
    from faststream import FastStream
    from faststream.confluent import KafkaBroker

    broker = KafkaBroker(bootstrap, logger=None)
    application = FastStream(broker, logger=None)

    @broker.subscriber(topic, group_id="faststream", auto_offset_reset="earliest", decoder=_as_it_is)
    async def handle(raw: bytes) -> None:
        if watch.decoded(raw):
            application.exit()

    await application.run()


async def _as_it_is(message: Any) -> Any:
    return message.body


def main() -> None:
    peer, bootstrap, topic, count = sys.argv[1:]
    watch = Watch(int(count))
    if peer == "quixstreams":
        _quixstreams(bootstrap, topic, watch)
    else:
        asyncio.run((_aiokafka if peer == "aiokafka" else _faststream)(bootstrap, topic, watch))
    sys.stdout.write(json.dumps({"seconds": watch.seconds}) + "\n")


if __name__ == "__main__":
    main()
