"""What the registry refuses before any route sees it: size, depth, number, strangers, and everybody before it is ready."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from pipeline.errors import BrokerUnavailableError, StopError
from pipeline.kafka.schemas_reader import LogRecord
from pipeline.registry.app import create_app
from pipeline.registry.log import MemoryLog, MemoryView
from pipeline.registry.store import SchemaStore

V1 = '{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}'


def opened(**options: Any) -> TestClient:
    store = SchemaStore(MemoryLog().view())
    store.open()
    return TestClient(create_app(store, **options), raise_server_exceptions=False)


@pytest.fixture
def api() -> Iterator[TestClient]:
    with opened() as client:
        yield client


def nested(levels: int) -> str:
    return '{"type":"array","items":' * levels + '"int"' + "}" * levels


@pytest.mark.parametrize("levels", [129, 1_000, 20_000])
def test_a_schema_that_is_nested_too_deeply_is_refused_clearly(api: TestClient, levels: int) -> None:
    answer = api.post("/subjects/s/versions", json={"schema": nested(levels)})
    assert (answer.status_code, answer.json()["error_code"]) == (422, 42201)
    assert "levels deep" in answer.json()["message"]


def test_a_schema_at_the_limit_of_depth_is_taken_and_compared(api: TestClient) -> None:
    assert api.post("/subjects/s/versions", json={"schema": nested(128)}).status_code == 200
    answer = api.post("/subjects/s/versions", json={"schema": nested(127)})
    assert answer.json()["error_code"] == 40901


def test_a_chain_of_types_as_long_as_the_size_allows_does_not_crash(api: TestClient) -> None:
    def chain(prefix: str) -> str:
        links = [{"name": "n0", "type": {"type": "record", "name": f"{prefix}0", "fields": [{"name": "x", "type": "int"}]}}]
        for i in range(1, 3_000):
            fields = [{"name": "x", "type": f"{prefix}{i - 1}"}]
            links.append({"name": f"n{i}", "type": {"type": "record", "name": f"{prefix}{i}", "fields": fields}})
        first_last = [{"name": "all", "type": ["null", {"type": "record", "name": "All", "fields": links}], "default": None}]
        return json.dumps({"type": "record", "name": "R", "fields": [*first_last, {"name": "z", "type": f"{prefix}2999"}]})

    assert api.post("/subjects/s/versions", json={"schema": chain("A")}).status_code == 200
    answer = api.post("/subjects/s/versions", json={"schema": chain("B")})
    assert answer.status_code in (409, 422), answer.text[:200]


def test_a_body_over_the_limit_is_refused_whether_it_says_its_length_or_not(api: TestClient) -> None:
    body = json.dumps({"schema": V1, "padding": "x" * 1_000_000}).encode()
    for content in (body, iter([body[:500_000], body[500_000:]])):
        answer = api.post("/subjects/s/versions", content=content)
        assert (answer.status_code, answer.json()["error_code"]) == (422, 42209)
    assert api.get("/subjects").json() == []


@pytest.mark.parametrize("body", [b"", b"not json", b"[" * 100_000, b'{"schema": 1', b"\xff\xfe", b"null", b"[]"])
def test_a_body_that_is_no_json_object_is_a_bad_request(api: TestClient, body: bytes) -> None:
    answer = api.post("/subjects/s/versions", content=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, 400)


def test_no_more_requests_run_at_once_than_allowed() -> None:
    entered, leave = threading.Event(), threading.Event()

    class SlowLog(MemoryView):
        def refresh(self) -> None:
            super().refresh()
            if started:
                entered.set()
                leave.wait(20)

    started = False
    log = MemoryLog()
    store = SchemaStore(SlowLog(log, threading.RLock()))
    store.open()
    started = True
    with TestClient(create_app(store, requests_max=1)) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get, "/schemas/ids/1")
        assert entered.wait(20)
        refused = client.get("/subjects")
        leave.set()
        assert waiting.result(20).status_code == 404
        assert (refused.status_code, refused.json()["error_code"], refused.headers["retry-after"]) == (503, 50302, "1")
        assert client.get("/subjects").status_code == 200


def test_strangers_are_refused_when_users_are_configured() -> None:
    with opened(users={"ann": "se:cret"}) as client:
        for headers in (
            {},
            {"Authorization": "Bearer abc"},
            {"Authorization": "Basic ???"},
            basic("ann", "wrong"),
            basic("bob", "se:cret"),
            basic("", ""),
        ):
            answer = client.get("/subjects", headers=headers)
            assert (answer.status_code, answer.json()["error_code"]) == (401, 40101)
            assert answer.headers["www-authenticate"].startswith("Basic")
        assert client.get("/subjects", headers=basic("ann", "se:cret")).status_code == 200
        assert client.get("/metrics").status_code == 401


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


class BrokenLog:
    """A log whose broker is away until ``works`` is set."""

    turns_taken = turns_lost = 0
    failure: str | None = None

    def __init__(self) -> None:
        self.works = threading.Event()
        self.inner = MemoryLog().view()

    def check(self) -> None:
        if not self.works.is_set():
            raise BrokerUnavailableError("no broker answered")

    def open(self, apply: Any) -> None:
        self.check()
        self.inner.open(apply)

    def refresh(self) -> None:
        self.check()
        self.inner.refresh()

    def write(self, decide: Any, observe: Any) -> None:
        self.check()
        self.inner.write(decide, observe)

    def close(self) -> None:
        self.inner.close()


def test_nothing_but_metrics_answers_before_the_topic_was_read() -> None:
    log = BrokenLog()
    store = SchemaStore(log)
    with TestClient(create_app(store)) as client:
        for path in ("/", "/subjects", "/schemas/ids/1"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["error_code"]) == (503, 50301)
        assert "headrace_registry_ready 0.0" in client.get("/metrics").text
        log.works.set()
        opener = store._opener
        assert opener is not None
        opener.join(20)
        assert client.get("/").status_code == 200
        assert client.get("/subjects").json() == []
        assert "headrace_registry_ready 1.0" in client.get("/metrics").text


def test_a_broker_that_is_away_fails_what_is_new_and_not_what_is_known() -> None:
    log = BrokenLog()
    log.works.set()
    store = SchemaStore(log)
    store.open()
    with TestClient(create_app(store)) as client:
        client.post("/subjects/s/versions", json={"schema": V1})
        log.works.clear()
        assert client.get("/schemas/ids/1").status_code == 200
        unknown = client.get("/schemas/ids/2")  # not 404: nobody knows
        assert (unknown.status_code, unknown.json()["error_code"]) == (500, 50002)
        written = client.post("/subjects/t/versions", json={"schema": V1})
        assert (written.status_code, written.json()["error_code"]) == (500, 50002)


def test_a_log_that_cannot_go_on_is_a_store_error() -> None:
    class GoneLog(MemoryView):
        def write(self, decide: Any, observe: Any) -> None:
            raise StopError("the topic is gone")

    store = SchemaStore(GoneLog(MemoryLog(), threading.RLock()))
    store.open()
    with TestClient(create_app(store)) as client:
        answer = client.put("/config", json={"compatibility": "FULL"})
        assert (answer.status_code, answer.json()["error_code"]) == (500, 50001)


def test_a_log_that_is_not_read_any_more_makes_the_registry_unready(api: TestClient) -> None:
    view = MemoryLog().view()
    store = SchemaStore(view)
    store.open()
    with TestClient(create_app(store)) as client:
        assert client.get("/").status_code == 200
        view.failure = "somebody deleted the topic"
        answer = client.get("/subjects")
        assert (answer.status_code, answer.json()["error_code"]) == (503, 50301)
        assert "somebody deleted the topic" in answer.json()["message"]


def test_a_bug_of_ours_is_a_500_without_its_inside() -> None:
    class BuggyLog(MemoryView):
        def write(self, decide: Any, observe: Any) -> None:
            raise ZeroDivisionError("secret inside")

    store = SchemaStore(BuggyLog(MemoryLog(), threading.RLock()))
    store.open()
    with TestClient(create_app(store), raise_server_exceptions=False) as client:
        answer = client.put("/config", json={"compatibility": "FULL"})
        assert (answer.status_code, answer.json()["error_code"]) == (500, 500)
        assert "secret" not in answer.text


def test_metrics_count_requests_by_route_not_by_subject(api: TestClient) -> None:
    api.post("/subjects/one/versions", json={"schema": V1})
    api.get("/subjects/two/versions")
    text = api.get("/metrics").text
    assert 'headrace_registry_requests_total{method="POST",route="subjects",status="200"} 1.0' in text
    assert 'headrace_registry_requests_total{method="GET",route="subjects",status="404"} 1.0' in text
    assert "two" not in text
    assert "headrace_registry_versions 1.0" in text


def test_a_record_that_is_not_confluents_is_counted_and_skipped() -> None:
    log = MemoryLog()
    log.append((b"\xff", b"x"), (b"{}", b"{}"), (b'{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}', b"[]"))
    store = SchemaStore(log.view())
    store.open()
    assert store.unreadable_records == 3
    assert store.ready


def test_the_observer_keeps_ids_that_appear_without_counting() -> None:
    store = SchemaStore(MemoryLog().view())
    store.open()
    value = b'{"subject":"s","version":1,"id":9,"schema":"\\"int\\"","deleted":false}'
    seen: Sequence[LogRecord] = [LogRecord(0, b'{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}', value, 0)]
    for one in seen:
        store._observe(one)
    assert store.state.next_id(".") == 10
    assert store.state.by_id(9) == []
