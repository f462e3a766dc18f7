"""The client of the registry when the registry is well, down, hanging, or not a registry at all."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from pipeline import Consumer, Producer
from pipeline.config import Config, Connection, load_config
from pipeline.errors import RegistryUnavailableError, SchemaError, StopError
from pipeline.kafka import registry_client
from pipeline.kafka.registry_client import RegistryClient, UnknownSchemaIdError
from pipeline.model.keys import hash_key
from pipeline.reshard.control_log import ControlLog

Make = Callable[..., tuple[Config, str]]
DEADLINE_S = 30.0


class Door(ThreadingHTTPServer):
    """Stands before the real registry: passes requests on, or answers as ``mood`` says. Counts what it was asked."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.mood: Any = "open"
        self.asked: list[str] = []
        self.leave = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that did not wait for its answer."""


class _Handler(BaseHTTPRequestHandler):
    server: Door

    def answer(self) -> None:
        door = self.server
        door.asked.append(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if door.mood == "hangs":
            door.leave.wait(DEADLINE_S)
            return
        if door.mood == "open":
            kind = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
            found = httpx2.request(self.command, door.behind + self.path, content=body, headers=kind)
            status, text = found.status_code, found.content
        else:
            status, text = door.mood
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", door.behind + self.path)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def door(stack: Any) -> Iterator[Door]:
    server = Door(stack.registry_url)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.leave.set()
    server.shutdown()
    server.server_close()
    thread.join()


def client(door: Door, timeout_s: float = 10.0) -> RegistryClient:
    return RegistryClient(Connection(bootstrap="nowhere:1", registry=door.url), timeout_s)


SCHEMA = json.dumps({"type": "record", "name": "Door", "fields": [{"name": "x", "type": "int"}]})


def test_an_id_that_is_known_needs_no_registry(door: Door) -> None:
    registry = client(door)
    known = registry.register("door", SCHEMA)
    reader = client(door)
    assert json.loads(reader.schema_text(known)) == json.loads(SCHEMA)
    assert reader.belongs(known, "other", "door")
    door.mood = (500, b"")
    assert reader.schema_text(known) == reader.schema_text(known)
    assert reader.belongs(known, "door")
    with pytest.raises(RegistryUnavailableError):
        client(door, 0.1).schema_text(known)


@pytest.mark.parametrize("mood", [(500, b'{"error_code": 50001, "message": "store"}'), (503, b"<html>"), (429, b""), "hangs"])
def test_a_registry_without_an_answer_is_tried_again_with_backoff_and_then_given_up_for_now(door: Door, mood: Any) -> None:
    door.mood = mood
    with pytest.raises(RegistryUnavailableError, match=r"within 0\.4 s.*headrace status"):
        client(door, 0.4).schema_text(1)
    assert len(door.asked) >= (1 if mood == "hangs" else 2)


def test_a_registry_that_comes_back_in_time_is_not_noticed(door: Door) -> None:
    known = client(door).register("door", SCHEMA)
    door.mood = (500, b"")
    timer = threading.Timer(0.2, lambda: setattr(door, "mood", "open"))
    timer.start()
    assert client(door, timeout_s=DEADLINE_S).schema_text(known)
    timer.join()


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ((302, b""), "sends us elsewhere"),
        ((307, b""), "sends us elsewhere"),
        ((404, b"<html>no such page</html>"), "is no schema registry"),
        ((404, b'{"error_code": 404, "message": "HTTP 404 Not Found"}'), "is no schema registry"),
        ((401, b""), "check registry_auth"),
    ],
)
def test_what_is_not_the_registry_stops_and_makes_no_record_a_bad_one(door: Door, mood: Any, words: str) -> None:
    door.mood = mood
    with pytest.raises(StopError, match=words) as caught:
        client(door).schema_text(1)
    assert not isinstance(caught.value, SchemaError)
    assert len(door.asked) == 1


def test_a_wrong_id_is_not_asked_for_with_every_message(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = client(door)
    other = registry.register("door", SCHEMA)
    fresh = client(door)
    door.asked.clear()
    for _ in range(3):
        with pytest.raises(UnknownSchemaIdError, match="no schema 987654"):
            fresh.schema_text(987_654)
        assert not fresh.belongs(other, "somebody-elses")
    assert len(door.asked) == 2
    monkeypatch.setattr(registry_client, "REFUSED_S", 0.0)
    later = client(door)
    for _ in range(2):
        assert not later.belongs(other, "somebody-elses")
    assert len(door.asked) == 4  # it may have been registered meanwhile


def test_a_registry_that_is_down_delays_new_schemas_only(
    order_config: Make, door: Door, stack: Any, tmp_path: Path
) -> None:
    config, stream = order_config()
    behind_the_door = _through(door, stack, tmp_path, stream)
    with Producer(stream, config=config, linger_ms=1) as producer:
        producer.put({"item": "warm", "number": 0}, key="warm")
        producer.flush()
        with ControlLog(config.connection, config.stream(stream)) as control:
            route = control.map.route
        low = next(f"k{n}" for n in range(99) if route(hash_key(f"k{n}")).id == "s0")
        high = next(f"k{n}" for n in range(99) if route(hash_key(f"k{n}")).id == "s1")
        with Consumer(stream, group="g", config=behind_the_door) as consumer:
            assert [r.value["number"] for r in _read(consumer, 1)] == [0]
            door.mood = "hangs"
            newer = _newer(config, stream, tmp_path)
            with Producer(stream, config=newer, linger_ms=1) as second:
                second.put({"item": low, "number": 1, "price": 2.5}, key=low)
                second.flush()
            for number in (2, 3):
                producer.put({"item": low, "number": number}, key=low)
                producer.put({"item": high, "number": number + 10}, key=high)
                producer.flush()
            assert [r.value["number"] for r in _read(consumer, 2)] == [12, 13]
            assert consumer.read(0.5) == []
            door.mood = "open"
            door.leave.set()
            assert [r.value for r in _read(consumer, 3)] == [
                {"item": low, "number": number, "note": None} for number in (1, 2, 3)
            ]


def _read(consumer: Consumer, count: int) -> list[Any]:
    found: list[Any] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(found) < count and time.monotonic() < deadline:
        found += consumer.read(0.5)
    return found


def _through(door: Door, stack: Any, folder: Path, stream: str) -> Config:
    profile = {"bootstrap": stack.bootstrap, "registry": door.url}
    file = folder / "door.yml"
    settings = {"schema": "order.avsc", "shards": 2, "key": "item"}
    file.write_text(yaml.safe_dump({"profile": "door", "profiles": {"door": profile}, "streams": {stream: settings}}))
    return load_config(file)


def _newer(config: Config, stream: str, folder: Path) -> Config:
    tree = json.loads((folder / "order.avsc").read_text())
    tree["fields"].append({"name": "price", "type": ["null", "double"], "default": None})
    (folder / "newer.avsc").write_text(json.dumps(tree))
    file = folder / "newer.yml"
    settings = {"schema": "newer.avsc", "shards": 2, "key": "item"}
    file.write_text(yaml.safe_dump({"profile": "embedded", "streams": {stream: settings}}))
    return load_config(file)
