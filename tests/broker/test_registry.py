"""Registries on a real broker, asked by confluent-kafka's own client: in threads; as processes where they die, sleep or race."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from confluent_kafka.schema_registry import ConfigCompatibilityLevel, Schema, SchemaReference, SchemaRegistryClient, ServerConfig
from confluent_kafka.schema_registry.error import SchemaRegistryError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from httpx2 import Client, HTTPError

from pipeline.registry.__main__ import server_config
from pipeline.registry.options import parse

DEADLINE_S = 60.0


def avro(name: str, *fields: str) -> Schema:
    body = {"type": "record", "name": name, "fields": [{"name": field, "type": "int", "default": 0} for field in fields]}
    return Schema(json.dumps(body), "AVRO")


class Registry:
    """One registry behind a port of its own, and its clients. This one is served by a thread, which starts at once."""

    def __init__(self, bootstrap: str, topic: str, *options: str, log: Path, scheme: str = "http", **environ: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.log = log
        self.http = Client(base_url=self.url, verify=False, timeout=30)
        self.run(["--bootstrap", bootstrap, "--port", str(self.port), "--topic", topic, *options], environ)

    def run(self, options: list[str], environ: dict[str, str]) -> None:
        self.server = uvicorn.Server(server_config(parse(options, environ)))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()

    @property
    def alive(self) -> bool:
        return self.thread.is_alive()

    def wait_until(self, good: Callable[[int, str], bool]) -> None:
        """Waits for an answer of ``/``."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            assert self.alive, self.said()
            try:
                answer = self.http.get("/")
                if good(answer.status_code, answer.text):
                    return
            except HTTPError:
                pass
            threading.Event().wait(0.02)
        raise AssertionError(self.said())

    def client(self, **more: Any) -> SchemaRegistryClient:
        return SchemaRegistryClient({"url": self.url, **more})

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def stop(self) -> int:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.alive
        return 0


class RegistryProcess(Registry):
    """The same as a process, as `headrace up` starts it."""

    def run(self, options: list[str], environ: dict[str, str]) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.registry", *options],
                stdout=out, stderr=out, env={**os.environ, **environ}, cwd=Path(__file__).parents[2],
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> int:
        if self.alive:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(30)


Start = Callable[..., Any]


@pytest.fixture
def topic() -> str:
    return f"_schemas-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def start(stack: Any, topic: str, tmp_path: Path) -> Iterator[Start]:
    running: list[Registry] = []

    def start(*options: str, ready: bool = True, kind: type[Registry] = Registry, **more: Any) -> Registry:
        registry = kind(stack.bootstrap, topic, *options, log=tmp_path / f"registry{len(running)}.log", **more)
        running.append(registry)
        if ready:
            registry.wait_until(lambda status, _: status == 200)
        return registry

    yield start
    for registry in running:
        registry.stop()
        registry.http.close()


@pytest.fixture
def start_process(start: Start) -> Start:
    """Like ``start``, for registries that are killed, sleep, or race in earnest."""

    def start_process(*options: str, **more: Any) -> Registry:
        return start(*options, kind=RegistryProcess, **more)

    return start_process


def create(bootstrap: str, topic: str, partitions: int, config: dict[str, str]) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(10)


def read_all(bootstrap: str, topic: str) -> tuple[list[tuple[int, bytes | None, bytes | None]], int]:
    """Every record with its offset, uncommitted ones too, and the log's end."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "look", "enable.partition.eof": True,
                         "isolation.level": "read_uncommitted"})  # fmt: skip
    consumer.assign([TopicPartition(topic, 0, 0)])
    found, deadline = [], time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        message = consumer.poll(1)
        if message is None:
            continue
        error = message.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF
            break
        found.append((message.offset() or 0, message.key(), message.value()))
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0))
    consumer.close()
    return found, end


# --- what a client sees ---


def test_confluents_client_finds_everything_it_asks_for(start: Start) -> None:
    client = start().client()
    assert client.register_schema("a/b:c-value", avro("R", "x")) == 1
    assert client.register_schema("s", avro("R", "x")) == 1
    assert client.register_schema("s", avro("R", "x", "y")) == 2
    assert client.get_subjects() == ["a/b:c-value", "s"]
    assert client.get_versions("s") == [1, 2]
    assert client.get_latest_version("s").version == 2
    assert client.get_version("a/b:c-value", 1).schema_id == 1
    assert json.loads(client.get_schema(2).schema_str or "")["fields"][1]["name"] == "y"
    registered = client.register_schema_full_response("s", avro("R", "x"))
    assert (registered.schema_id, registered.version) == (1, 1)
    assert registered.guid is not None
    assert client.get_schema_by_guid(registered.guid).schema_str == client.get_schema(1).schema_str
    assert client.lookup_schema("s", avro("R", "x")).version == 1
    assert client.get_schema_types() == ["AVRO"]
    assert client.test_compatibility("s", Schema(json.dumps({"type": "record", "name": "R", "fields": []}), "AVRO"))
    other = {"type": "record", "name": "R", "fields": [{"name": "x", "type": "boolean"}]}
    assert not client.test_compatibility("s", Schema(json.dumps(other), "AVRO"))
    assert client.set_compatibility("s", "FULL")["compatibility"] == "FULL"
    assert client.get_compatibility("s") == "FULL"
    assert client.get_config("s").compatibility_level == "FULL"
    client.set_config("s", ServerConfig(compatibility=ConfigCompatibilityLevel.NONE))
    client.delete_config("s")
    assert client.update_mode("s", "READONLY") == "READONLY"
    assert client.get_mode("s") == "READONLY"
    client.delete_mode("s")
    reference = SchemaReference("R", "s", 1)
    holder = Schema(json.dumps({"type": "record", "name": "H", "fields": [{"name": "r", "type": "R"}]}), "AVRO", [reference])
    assert client.register_schema("holder", holder) == 3
    assert client.get_referenced_by("s", 1) == [3]
    assert client.delete_subject("holder") == [1]
    assert client.delete_subject("holder", permanent=True) == [1]
    assert client.delete_version("s", 1) == 1
    with pytest.raises(SchemaRegistryError) as caught:
        client.get_schema(99)
    assert (caught.value.http_status_code, caught.value.error_code) == (404, 40403)


def test_a_restarted_registry_says_what_it_said_before(start_process: Start) -> None:
    first = start_process()
    for i in range(5):
        first.client().register_schema(f"s{i}", avro(f"R{i}", "x"))
    first.client().delete_subject("s4")
    before = first.http.get("/schemas?deleted=true").json()
    assert first.stop() in (0, -signal.SIGTERM)
    assert start_process().http.get("/schemas?deleted=true").json() == before


# --- the topic ---


def test_the_topic_is_compacted_and_in_confluents_format(start: Start, stack: Any, topic: str) -> None:
    start().client().register_schema("s", avro("R", "x"))
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    assert len(admin.list_topics(topic, timeout=10).topics[topic].partitions) == 1
    resource = ConfigResource(ResourceType.TOPIC, topic)
    assert admin.describe_configs([resource])[resource].result(10)["cleanup.policy"].value == "compact"
    records, end = read_all(stack.bootstrap, topic)
    schemas = [(key, value) for _, key, value in records if key is not None and b"SCHEMA" in key]
    assert schemas[0][0] == b'{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}'
    assert json.loads(schemas[0][1] or b"") == {
        "subject": "s",
        "version": 1,
        "id": 1,
        "schemaType": "AVRO",
        "schema": '{"type":"record","name":"R","fields":[{"name":"x","type":"int","default":0}]}',
        "deleted": False,
    }
    # A registry that waits for the last offset must get a record there, not a transaction's marker.
    assert records[-1][:2] == (end - 1, b'{"keytype":"NOOP","magic":0}')


def test_a_topic_of_another_registry_is_taken_over(start: Start, stack: Any, topic: str) -> None:
    create(stack.bootstrap, topic, 1, {"cleanup.policy": "compact"})
    producer = Producer({"bootstrap.servers": stack.bootstrap})
    schema = '{"type":"record","name":"R","fields":[{"name":"x","type":"int","default":0}]}'
    version = {"subject": "s", "version": 1, "id": 41, "schema": schema, "deleted": False}
    for key, value in (
        ('{"keytype":"NOOP","magic":0}', None),
        ('{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}', version),
        ('{"keytype":"CONFIG","magic":0}', {"compatibilityLevel": "FULL"}),
    ):
        producer.produce(topic, None if value is None else json.dumps(value), key)
    assert producer.flush(10) == 0
    client = start().client()
    assert client.register_schema("s", avro("R", "x")) == 41
    assert client.register_schema("t", avro("R", "x", "y")) == 42
    assert client.get_compatibility() == "FULL"


def test_an_id_in_a_transaction_that_was_given_up_is_not_used_again(start: Start, stack: Any, topic: str) -> None:
    registry = start()
    assert registry.client().register_schema("s", avro("R", "x")) == 1
    zombie = Producer({"bootstrap.servers": stack.bootstrap, "transactional.id": f"{topic}-writer"})
    zombie.init_transactions(20)
    zombie.begin_transaction()
    value = {"subject": "z", "version": 1, "id": 50, "schema": '"int"', "deleted": False}
    zombie.produce(topic, json.dumps(value), '{"keytype":"SCHEMA","subject":"z","version":1,"magic":1}')
    zombie.flush(10)  # and dies here
    client = registry.client()
    assert client.register_schema("t", avro("R", "x", "y")) == 51
    assert client.get_subjects() == ["s", "t"]


@pytest.mark.parametrize(("partitions", "config"), [(1, {"cleanup.policy": "delete"}), (2, {"cleanup.policy": "compact"})])
def test_a_topic_that_would_lose_schemas_is_refused(
    start: Start, stack: Any, topic: str, partitions: int, config: dict[str, str]
) -> None:
    create(stack.bootstrap, topic, partitions, config)
    words = "partitions" if partitions > 1 else "not compacted"
    start(ready=False).wait_until(lambda status, text: status == 503 and words in text)


@pytest.mark.parametrize("created_again", [False, True])
def test_a_topic_that_was_deleted_is_said_and_not_papered_over(
    start: Start, stack: Any, topic: str, monkeypatch: pytest.MonkeyPatch, created_again: bool
) -> None:
    monkeypatch.setattr("pipeline.kafka.schemas_reader.IDENTITY_CHECK_S", 0.3)
    registry = start()
    registry.client().register_schema("s", avro("R", "x"))
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    admin.delete_topics([topic])[topic].result(10)
    if created_again:
        start("--timeout-s", "5").stop()
    registry.wait_until(lambda status, text: status == 503 and ("again" in text or "gone" in text))


def test_a_schema_that_the_topic_cannot_hold_is_too_large(start: Start, stack: Any, topic: str) -> None:
    config = {"cleanup.policy": "compact", "max.message.bytes": "2000"}
    create(stack.bootstrap, topic, 1, config)
    client = start().client()
    with pytest.raises(SchemaRegistryError) as caught:
        client.register_schema("s", avro("R", *[f"field{i}" for i in range(200)]))
    assert (caught.value.http_status_code, caught.value.error_code) == (422, 42209)
    assert client.register_schema("s", avro("R", "x")) >= 1


# --- several registries ---


def test_two_registries_that_race_agree_on_every_id_and_version(start_process: Start) -> None:
    registries, count = [start_process(), start_process()], 8
    given: list[dict[str, int]] = [{}, {}]
    failures: list[BaseException] = []

    def work(which: int) -> None:
        client = registries[which].client()
        try:
            for i in range(count):
                given[which][f"same{i}"] = client.register_schema(f"own-{which}-{i}", avro(f"Same{i}", "x"))
                given[which][f"own{which}-{i}"] = client.register_schema("shared", avro("Shared", f"f{which}x{i}"))
        except BaseException as error:  # noqa: BLE001 - shown by the test's thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not failures, failures
    assert [given[0][f"same{i}"] for i in range(count)] == [given[1][f"same{i}"] for i in range(count)]
    seen = [registry.http.get("/schemas").json() for registry in registries]
    assert seen[0] == seen[1]
    assert [one["version"] for one in seen[0] if one["subject"] == "shared"] == list(range(1, 2 * count + 1))
    schemas_of: dict[int, set[str]] = {}
    for one in seen[0]:
        schemas_of.setdefault(one["id"], set()).add(one["schema"])
    assert all(len(schemas) == 1 for schemas in schemas_of.values())
    assert sorted(schemas_of) == sorted({*given[0].values(), *given[1].values()})
    assert start_process().http.get("/schemas").json() == seen[0]


def test_a_registry_that_slept_does_not_write_what_it_decided_before(start_process: Start) -> None:
    sleeper, other = start_process(), start_process()
    assert sleeper.client().register_schema("s", avro("R", "x")) == 1
    answers: list[int] = []
    sleeper.process.send_signal(signal.SIGSTOP)
    late = threading.Thread(target=lambda: answers.append(sleeper.client().register_schema("t", avro("Late", "x"))))
    late.start()
    assert other.client().register_schema("u", avro("Other", "x")) == 2
    sleeper.process.send_signal(signal.SIGCONT)
    late.join(DEADLINE_S)
    assert answers == [3]
    assert other.http.get("/schemas/ids/3/subjects").json() == ["t"]
    assert sleeper.http.get("/schemas/ids/2/subjects").json() == ["u"]


def test_what_was_acknowledged_survives_a_kill_at_any_moment(start_process: Start) -> None:
    acknowledged: dict[str, int] = {}
    for attempt in range(3):
        registry = start_process()
        killer = threading.Timer(0.02 * attempt, registry.process.kill)
        client = registry.client(**{"max.retries": 0})
        for i in range(10_000):
            try:
                acknowledged[f"s{attempt}-{i}"] = client.register_schema(f"s{attempt}-{i}", avro(f"R{attempt}x{i}", "x"))
                if i == 5:
                    killer.start()
            except Exception:  # noqa: BLE001 - whatever a client says of a server that was killed
                break
        killer.join()
        registry.process.wait(30)
    left = start_process()
    assert len(acknowledged) >= 3 * 6
    for subject, schema_id in acknowledged.items():
        assert left.http.get(f"/subjects/{subject}/versions/1").json()["id"] == schema_id
    ids = [one["id"] for one in left.http.get("/schemas").json()]
    assert len(ids) == len(set(ids))


# --- many schemas ---


def test_a_registry_answers_only_when_it_has_read_every_schema_of_a_large_topic(start: Start, stack: Any, topic: str) -> None:
    create(stack.bootstrap, topic, 1, {"cleanup.policy": "compact"})
    producer, count = Producer({"bootstrap.servers": stack.bootstrap, "linger.ms": 50}), 3_000
    for i in range(count):
        value = {"subject": f"s{i}", "version": 1, "id": i + 1, "schema": avro(f"R{i}", "x").schema_str, "deleted": False}
        producer.produce(
            topic, json.dumps(value), json.dumps({"keytype": "SCHEMA", "subject": f"s{i}", "version": 1, "magic": 1})
        )
        producer.poll(0)
    assert producer.flush(30) == 0
    registry = start()
    assert len(registry.http.get("/subjects").json()) == count  # the first answer after a start
    assert json.loads(registry.http.get(f"/schemas/ids/{count}").json()["schema"])["name"] == f"R{count - 1}"
    assert registry.client().register_schema("next", avro("Next", "x")) == count + 1


# --- users and TLS ---


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_file.write_bytes(key.private_bytes(*private))
    return cert_file, key_file


def test_users_and_tls_keep_strangers_out_and_secrets_out_of_the_log(start_process: Start, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    registry = start_process(
        "--tls-cert", str(cert), "--tls-key", str(key),
        ready=False, scheme="https", HEADRACE_REGISTRY_USERS="ann:geheim",
    )  # fmt: skip
    registry.wait_until(lambda status, _: status == 401)
    registry.http.auth = ("ann", "geheim")
    registry.wait_until(lambda status, _: status == 200)
    known = registry.client(**{"ssl.ca.location": str(cert), "basic.auth.user.info": "ann:geheim"})
    assert known.register_schema("s", avro("R", "x")) == 1
    stranger = registry.client(**{"ssl.ca.location": str(cert), "basic.auth.user.info": "ann:wrong"})
    with pytest.raises(SchemaRegistryError) as caught:
        stranger.get_subjects()
    assert (caught.value.http_status_code, caught.value.error_code) == (401, 40101)
    registry.stop()
    assert "geheim" not in registry.log.read_text()


def test_every_line_of_a_registrys_log_is_one_json_event_also_while_no_broker_answers(start_process: Start) -> None:
    registry = start_process("--bootstrap", "127.0.0.1:9", "--timeout-s", "3", ready=False)
    registry.wait_until(lambda status, _: status == 503)
    deadline = time.monotonic() + DEADLINE_S
    while "transport failure" not in registry.said():
        assert time.monotonic() < deadline, "the broker that does not answer is not told of"
        time.sleep(0.05)
    registry.stop()
    for line in registry.said().splitlines():
        assert json.loads(line)["event"], line
