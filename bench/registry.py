"""The embedded registry with many schemas: seconds until it answers after a start, milliseconds of a look-up."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from bench.figure import Arena, Figure, percentile
from pipeline.config import Connection

SCHEMAS = 10_000
LOOKUPS = 500
START_S_MAX = 60.0


def run(arena: Arena) -> list[Figure]:
    """Fill a topic of its own with schemas of ten fields, start a registry on it, and ask."""
    connection = arena.project("registered").connection
    arena.say(f"a registry with {SCHEMAS:,} schemas")
    topic = f"_schemas-bench-{uuid.uuid4().hex[:8]}"
    _fill(connection, topic, SCHEMAS)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipeline.registry", "--bootstrap", connection.bootstrap]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--port", str(port), "--topic", topic], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        while not _answers(url):
            if process.poll() is not None or time.perf_counter() > started + START_S_MAX:
                raise RuntimeError(f"the registry did not answer within {START_S_MAX:g} s")
            time.sleep(0.02)
        start_s = time.perf_counter() - started  # the process's start included
        times_ms = []
        for number in range(LOOKUPS):
            began = time.perf_counter()
            with urllib.request.urlopen(f"{url}/schemas/ids/{1 + number * 7919 % SCHEMAS}") as answer:
                answer.read()
            times_ms.append((time.perf_counter() - began) * 1_000)
    finally:
        process.terminate()
        process.wait(30)
    return [
        Figure("registry", f"start with {SCHEMAS:,} schemas, to the first answer", start_s, "s"),
        *(Figure("registry", f"a look-up over HTTP, p{p}", percentile(times_ms, p), "ms") for p in (50, 99)),
    ]


def _fill(connection: Connection, topic: str, schemas: int) -> None:
    settings = connection.kafka_settings()
    admin = AdminClient(settings)  # kept: a future of one that is gone fails
    admin.create_topics([NewTopic(topic, 1, 1, config={"cleanup.policy": "compact"})])[topic].result(30)
    producer = Producer(settings | {"linger.ms": 50})
    for number in range(schemas):
        fields = [{"name": f"field{i}", "type": "int", "default": 0} for i in range(10)]
        schema = json.dumps({"type": "record", "name": f"R{number}", "fields": fields}, separators=(",", ":"))
        value = {"subject": f"s{number}", "version": 1, "id": number + 1, "schema": schema, "deleted": False}
        key = {"keytype": "SCHEMA", "subject": f"s{number}", "version": 1, "magic": 1}
        producer.produce(topic, json.dumps(value), json.dumps(key))
        producer.poll(0)
    if producer.flush(60):
        raise RuntimeError("the broker did not take the schemas")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
