"""The registry's REST API as clients use it, over a log in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from pipeline.registry.app import create_app
from pipeline.registry.log import MemoryLog
from pipeline.registry.store import SchemaStore


def record(*fields: dict[str, Any], name: str = "R") -> str:
    return json.dumps({"type": "record", "name": name, "fields": list(fields)})


A = {"name": "a", "type": "int"}
B = {"name": "b", "type": "int"}
B_DEFAULT = {**B, "default": 0}
V1, V2, WRONG = record(A), record(A, B_DEFAULT), record(A, B)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def api(log: MemoryLog) -> Iterator[TestClient]:
    store = SchemaStore(log.view())
    store.open()
    with TestClient(create_app(store), raise_server_exceptions=False) as client:
        yield client


def register(api: TestClient, subject: str, schema: str, **more: Any) -> dict[str, Any]:
    answer = api.post(f"/subjects/{quote(subject, safe='')}/versions", json={"schema": schema, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def code(answer: Any) -> tuple[int, int]:
    return answer.status_code, answer.json()["error_code"]


# --- registering and looking up ---


def test_the_same_schema_gets_the_same_id_under_every_subject(api: TestClient) -> None:
    first, second = register(api, "one", V1), register(api, "two", V1)
    other = register(api, "three", V2)
    assert first["id"] == second["id"] == 1
    assert first["guid"] == second["guid"]
    assert other["id"] == 2
    assert api.get("/schemas/ids/1/subjects").json() == ["one", "two"]
    assert api.get("/schemas/ids/1/versions").json() == [{"subject": "one", "version": 1}, {"subject": "two", "version": 1}]


def test_registering_again_answers_the_version_that_is_there(api: TestClient, log: MemoryLog) -> None:
    register(api, "s", V1)
    written = len(log.records)
    spaced = json.dumps(json.loads(V1), indent=4)
    assert register(api, "s", spaced)["version"] == 1
    assert len(log.records) == written
    assert api.get("/subjects/s/versions").json() == [1]


def test_a_version_answers_by_number_and_as_latest(api: TestClient) -> None:
    register(api, "s", V1)
    register(api, "s", V2)
    latest = api.get("/subjects/s/versions/latest").json()
    assert (latest["subject"], latest["version"], latest["id"]) == ("s", 2, 2)
    assert json.loads(latest["schema"]) == json.loads(V2)
    assert api.get("/subjects/s/versions/-1").json() == latest
    assert api.get("/subjects/s/versions/1").json()["id"] == 1
    assert json.loads(api.get("/subjects/s/versions/1/schema").text) == json.loads(V1)


def test_a_schema_answers_by_id_and_guid(api: TestClient) -> None:
    guid = register(api, "s", V1)["guid"]
    by_id = api.get("/schemas/ids/1").json()
    assert json.loads(by_id["schema"]) == json.loads(V1)
    assert by_id["guid"] == guid
    assert api.get(f"/schemas/guids/{guid}").json()["schema"] == by_id["schema"]
    assert api.get(f"/schemas/guids/{guid}/ids").json() == [{"context": ".", "id": 1}]
    assert api.get("/schemas/ids/1/schema").text == by_id["schema"]
    assert api.get("/schemas/ids/1?subject=s").json()["subject"] == "s"
    assert api.get("/schemas/ids/1?fetchMaxId=true").json()["maxId"] == 1


def test_a_schema_is_found_under_its_subject_only(api: TestClient) -> None:
    register(api, "s", V1)
    assert api.post("/subjects/s", json={"schema": V1}).json()["version"] == 1
    assert code(api.post("/subjects/s", json={"schema": V2})) == (404, 40403)
    assert code(api.post("/subjects/other", json={"schema": V1})) == (404, 40401)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/subjects/none/versions", (404, 40401)),
        ("GET", "/subjects/none/versions/1", (404, 40401)),
        ("GET", "/subjects/s/versions/7", (404, 40402)),
        ("GET", "/subjects/s/versions/0", (422, 42202)),
        ("GET", "/subjects/s/versions/first", (422, 42202)),
        ("GET", "/subjects/s/versions/2147483648", (422, 42202)),
        ("GET", "/schemas/ids/77", (404, 40403)),
        ("GET", "/schemas/ids/x", (404, 40403)),
        ("GET", "/schemas/guids/none", (404, 40403)),
        ("GET", "/config/none", (404, 40408)),
        ("GET", "/mode/none", (404, 40409)),
        ("DELETE", "/subjects/none", (404, 40401)),
        ("DELETE", "/subjects/s/versions/7", (404, 40402)),
        ("DELETE", "/subjects/s?permanent=true", (404, 40405)),
        ("DELETE", "/subjects/s/versions/1?permanent=true", (404, 40407)),
        ("DELETE", "/config/s", (404, 40401)),
        ("GET", "/nothing", (404, 404)),
        ("PATCH", "/subjects", (405, 405)),
    ],
)
def test_what_is_not_there_is_refused_with_its_own_code(
    api: TestClient, method: str, path: str, expected: tuple[int, int]
) -> None:
    register(api, "s", V1)
    assert code(api.request(method, path)) == expected


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "not json",
        "{}",
        '{"type":"record","name":"R"}',
        '{"type":"record","name":"R","fields":[{"name":"a","type":"unknown"}]}',
        '{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}',
        '{"type":"record","name":"R","fields":[{"name":"x","type":{"type":"enum","name":"R","symbols":["A"]}}]}',
        '{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":"text"}]}',
        '{"type":"record","name":"1R","fields":[]}',
        '["int","int"]',
        '"\\ud800"',
    ],
)
def test_a_schema_that_is_not_avro_is_refused_with_the_reason(api: TestClient, schema: str) -> None:
    answer = api.post("/subjects/s/versions", json={"schema": schema})
    assert code(answer) == (422, 42201)
    assert len(answer.json()["message"]) > len("Invalid schema: ")
    assert code(api.get("/subjects/s/versions")) == (404, 40401)


@pytest.mark.parametrize("kind", ["JSON", "PROTOBUF", "OTHER"])
def test_other_schema_types_are_answered_as_unsupported(api: TestClient, kind: str) -> None:
    answer = api.post("/subjects/s/versions", json={"schema": "{}", "schemaType": kind})
    assert code(answer) == (422, 42201)
    assert kind in answer.json()["message"]
    assert api.get("/schemas/types").json() == ["AVRO"]


def test_unknown_fields_and_parameters_are_left_alone(api: TestClient) -> None:
    answer = api.post("/subjects/s/versions?someday=1", json={"schema": V1, "someday": {"x": [1]}, "references": None})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/vnd.schemaregistry.v1+json")


# --- names ---


@pytest.mark.parametrize("subject", ["a/b", "a:b", "a b%20c", "ü-value", "a/versions/1", "100%", "plus+plus?x=1#y", "a\\b"])
def test_subjects_with_any_character_keep_their_name(api: TestClient, subject: str) -> None:
    register(api, subject, V1)
    assert api.get("/subjects").json() == [subject]
    place = quote(subject, safe="")
    assert api.get(f"/subjects/{place}/versions/latest").json()["subject"] == subject
    assert api.put(f"/config/{place}", json={"compatibility": "NONE"}).status_code == 200
    assert api.get(f"/config/{place}").json() == {"compatibilityLevel": "NONE"}
    assert api.delete(f"/subjects/{place}").json() == [1]


@pytest.mark.parametrize("subject", ["a%00b", "__GLOBAL", "__EMPTY", "a%0Ab", "%ff"])
def test_reserved_and_control_names_are_refused(api: TestClient, subject: str) -> None:
    assert code(api.post(f"/subjects/{subject}/versions", json={"schema": V1})) == (422, 42208)


def test_contexts_have_ids_of_their_own(api: TestClient) -> None:
    register(api, "s", V1)
    assert register(api, ":.team:s", V2)["id"] == 1
    assert api.get("/contexts").json() == [".", ".team"]
    assert json.loads(api.get("/schemas/ids/1?subject=:.team:s").json()["schema"]) == json.loads(V2)
    assert api.get("/subjects?subjectPrefix=:.team:").json() == [":.team:s"]
    assert api.get("/subjects?subjectPrefix=s").json() == ["s"]
    assert api.get("/subjects?subjectPrefix=:*:s").json() == [":.team:s", "s"]


def test_lists_are_cut_by_offset_and_limit(api: TestClient) -> None:
    for name in "abcd":
        register(api, name, V1)
    assert api.get("/subjects?offset=1&limit=2").json() == ["b", "c"]
    assert api.get("/subjects?limit=-1").json() == list("abcd")
    assert api.get("/schemas/ids/1/subjects?offset=3").json() == ["d"]
    assert [one["subject"] for one in api.get("/schemas?offset=2").json()] == ["c", "d"]
    assert code(api.get("/subjects?limit=some")) == (400, 400)


# --- compatibility ---


def test_an_incompatible_schema_is_refused_with_the_path_and_the_rule(api: TestClient) -> None:
    register(api, "s", V1)
    answer = api.post("/subjects/s/versions", json={"schema": WRONG})
    assert code(answer) == (409, 40901)
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in answer.json()["message"]
    assert "/fields/1" in answer.json()["message"]
    assert api.get("/subjects/s/versions").json() == [1]


def test_compatibility_is_told_without_registering(api: TestClient) -> None:
    register(api, "s", V1)
    for place in (
        "/compatibility/subjects/s/versions",
        "/compatibility/subjects/s/versions/1",
        "/compatibility/subjects/s/versions/latest",
    ):
        assert api.post(place, json={"schema": V2}).json() == {"is_compatible": True}
        assert api.post(place, json={"schema": WRONG}).json() == {"is_compatible": False}
        verbose = api.post(f"{place}?verbose=true", json={"schema": WRONG}).json()
        assert "READER_FIELD_MISSING_DEFAULT_VALUE" in verbose["messages"][0]
        assert "{oldSchemaVersion: 1}" in verbose["messages"]
    assert api.post("/compatibility/subjects/s/versions?verbose=true", json={"schema": V2}).json()["messages"] == []
    assert code(api.post("/compatibility/subjects/s/versions/9", json={"schema": V2})) == (404, 40402)
    assert api.post("/compatibility/subjects/new/versions/latest", json={"schema": V2}).json() == {"is_compatible": True}
    assert code(api.post("/compatibility/subjects/s/versions", json={"schema": "{"})) == (422, 42201)
    assert api.post("/compatibility/subjects/s/versions?verbose=true", json={"schema": "{"}).json()["is_compatible"] is False
    assert api.get("/subjects/s/versions").json() == [1]


def test_a_transitive_level_looks_at_every_version(api: TestClient) -> None:
    register(api, "s", record(A, {"name": "x", "type": "int"}))
    register(api, "s", record(A))
    third = record(A, {"name": "x", "type": "string", "default": ""})
    assert api.post("/compatibility/subjects/s/versions", json={"schema": third}).json()["is_compatible"]
    api.put("/config/s", json={"compatibility": "BACKWARD_TRANSITIVE"})
    assert code(api.post("/subjects/s/versions", json={"schema": third})) == (409, 40901)
    api.put("/config/s", json={"compatibility": "NONE"})
    assert register(api, "s", third)["version"] == 3


def test_force_registers_what_is_incompatible(api: TestClient) -> None:
    register(api, "s", V1)
    assert api.post("/subjects/s/versions?force=true", json={"schema": WRONG}).json()["version"] == 2


# --- config and mode ---


def test_config_counts_for_all_or_for_a_subject(api: TestClient) -> None:
    assert api.get("/config").json() == {"compatibilityLevel": "BACKWARD"}
    assert api.put("/config", json={"compatibility": "full"}).json() == {"compatibility": "FULL"}
    assert api.get("/config/s?defaultToGlobal=true").json() == {"compatibilityLevel": "FULL"}
    assert code(api.get("/config/s")) == (404, 40408)
    assert api.put("/config/s", json={"compatibility": "NONE"}).json() == {"compatibility": "NONE"}
    assert api.get("/config/s").json() == {"compatibilityLevel": "NONE"}
    assert api.delete("/config/s").json() == {"compatibilityLevel": "NONE"}
    assert api.delete("/config").json() == {"compatibilityLevel": "FULL"}
    assert api.get("/config").json() == {"compatibilityLevel": "BACKWARD"}
    assert code(api.put("/config", json={"compatibility": "SOMETIMES"})) == (422, 42203)
    assert code(api.put("/config", content=b"[]")) == (400, 400)


def test_a_mode_decides_who_may_write(api: TestClient) -> None:
    register(api, "s", V1)
    assert api.get("/mode").json() == {"mode": "READWRITE"}
    assert api.put("/mode/s", json={"mode": "READONLY"}).json() == {"mode": "READONLY"}
    assert code(api.post("/subjects/s/versions", json={"schema": V2})) == (422, 42205)
    assert code(api.delete("/subjects/s")) == (422, 42205)
    assert code(api.put("/config/s", json={"compatibility": "NONE"})) == (422, 42205)
    register(api, "t", V1)
    assert api.delete("/mode/s").json() == {"mode": "READONLY"}
    assert code(api.get("/mode/s")) == (404, 40409)
    assert api.get("/mode/s?defaultToGlobal=true").json() == {"mode": "READWRITE"}
    register(api, "s", V2)
    assert code(api.put("/mode", json={"mode": "ASLEEP"})) == (422, 42204)
    assert code(api.put("/mode/s", json={"mode": "FORWARD"})) == (422, 42204)


def test_an_import_keeps_the_ids_that_it_brings(api: TestClient) -> None:
    assert code(api.post("/subjects/s/versions", json={"schema": V1, "id": 40})) == (422, 42205)
    assert api.put("/mode/s", json={"mode": "IMPORT"}).status_code == 200
    assert register(api, "s", V1, id=40, version=7) | {"id": 40, "version": 7} == register(api, "s", V1, id=40)
    assert code(api.post("/subjects/s/versions", json={"schema": V1, "id": 41})) == (422, 42207)
    assert code(api.post("/subjects/s/versions", json={"schema": V2, "id": 40})) == (422, 42205)
    assert code(api.post("/subjects/s/versions", json={"schema": V2})) == (422, 42205)
    assert register(api, "t", V2)["id"] == 41
    assert code(api.put("/mode/t", json={"mode": "IMPORT"})) == (422, 42205)
    assert api.put("/mode/t?force=true", json={"mode": "IMPORT"}).status_code == 200


# --- deleting ---


def test_soft_delete_comes_before_permanent_delete(api: TestClient) -> None:
    register(api, "s", V1)
    register(api, "s", V2)
    assert api.delete("/subjects/s/versions/1").json() == 1
    assert code(api.delete("/subjects/s/versions/1")) == (404, 40406)
    assert api.get("/subjects/s/versions").json() == [2]
    assert api.get("/subjects/s/versions?deleted=true").json() == [1, 2]
    assert api.get("/subjects/s/versions?deletedOnly=true").json() == [1]
    assert api.get("/subjects/s/versions?deletedAsNegative=true").json() == [-1, 2]
    assert code(api.get("/subjects/s/versions/1")) == (404, 40402)
    assert api.get("/subjects/s/versions/1?deleted=true").json()["deleted"] is True
    assert api.get("/schemas/ids/1").status_code == 200
    assert api.delete("/subjects/s/versions/1?permanent=true").json() == 1
    assert api.get("/subjects/s/versions?deleted=true").json() == [2]
    assert code(api.get("/schemas/ids/1")) == (404, 40403)
    assert api.delete("/subjects/s/versions/latest").json() == 2


def test_a_subject_is_deleted_softly_then_for_good(api: TestClient) -> None:
    register(api, "s", V1)
    register(api, "s", V2)
    api.put("/config/s", json={"compatibility": "NONE"})
    assert api.delete("/subjects/s").json() == [1, 2]
    assert code(api.delete("/subjects/s")) == (404, 40404)
    assert api.get("/subjects").json() == []
    assert api.get("/subjects?deleted=true").json() == api.get("/subjects?deletedOnly=true").json() == ["s"]
    assert api.post("/subjects/s?deleted=true", json={"schema": V1}).json()["version"] == 1
    assert code(api.post("/subjects/s", json={"schema": V1})) == (404, 40401)
    assert api.delete("/subjects/s?permanent=true").json() == [1, 2]
    assert api.get("/subjects?deleted=true").json() == []
    assert code(api.get("/config/s")) == (404, 40408)
    assert code(api.delete("/subjects/s?permanent=true")) == (404, 40401)


def test_a_schema_registered_again_after_a_soft_delete_keeps_its_id(api: TestClient) -> None:
    register(api, "s", V1)
    api.delete("/subjects/s")
    again = register(api, "s", V1)
    assert (again["id"], again["version"]) == (1, 2)
    assert api.get("/subjects/s/versions?deleted=true").json() == [2]


def test_an_id_is_not_given_out_again_after_a_permanent_delete(api: TestClient, log: MemoryLog) -> None:
    register(api, "s", V1)
    assert register(api, "t", V2)["id"] == 2
    api.delete("/subjects/t")
    api.delete("/subjects/t?permanent=true")
    log.compact()
    store = SchemaStore(log.view())
    store.open()
    with TestClient(create_app(store)) as restarted:
        assert register(restarted, "u", WRONG)["id"] == 3


# --- references ---


def test_a_schema_may_refer_to_others(api: TestClient) -> None:
    register(api, "airport", record({"name": "iata", "type": "string"}, name="Airport"))
    flight = record({"name": "to", "type": "Airport"}, name="Flight")
    references = [{"name": "Airport", "subject": "airport", "version": 1}]
    assert code(api.post("/subjects/flight/versions", json={"schema": flight})) == (422, 42201)
    answer = register(api, "flight", flight, references=references)
    assert answer["references"] == references
    assert api.get("/schemas/ids/2").json()["references"] == references
    assert api.get("/subjects/airport/versions/1/referencedby").json() == [2]
    assert code(api.delete("/subjects/airport")) == (422, 42206)
    assert code(api.delete("/subjects/airport/versions/1")) == (422, 42206)
    resolved = json.loads(api.get("/schemas/ids/2?format=resolved").json()["schema"])
    assert resolved["fields"][0]["type"]["name"] == "Airport"
    missing = [{"name": "Airport", "subject": "airport", "version": 9}]
    assert code(api.post("/subjects/x/versions", json={"schema": flight, "references": missing})) == (422, 42201)
    api.delete("/subjects/flight")
    assert api.get("/subjects/airport/versions/1/referencedby").json() == []
    assert api.get("/subjects/airport/versions/1/referencedby?deleted=true").json() == [2]
    assert api.delete("/subjects/airport").json() == [1]
    assert code(api.delete("/subjects/airport?permanent=true")) == (422, 42206)


def test_compatibility_sees_through_references(api: TestClient) -> None:
    register(api, "airport", record({"name": "iata", "type": "string"}, name="Airport"))
    api.put("/config/airport", json={"compatibility": "NONE"})
    register(api, "airport", record({"name": "iata", "type": "int"}, name="Airport"))
    flight = record({"name": "to", "type": "Airport"}, name="Flight")
    register(api, "flight", flight, references=[{"name": "Airport", "subject": "airport", "version": 1}])
    second = {"schema": flight, "references": [{"name": "Airport", "subject": "airport", "version": 2}]}
    answer = api.post("/subjects/flight/versions", json=second)
    assert code(answer) == (409, 40901)
    assert "/fields/0/type/fields/0/type" in answer.json()["message"]


# --- normalize, metadata ---


def test_normalize_makes_schemas_equal_that_are_written_differently(api: TestClient) -> None:
    one = json.dumps({"type": "record", "name": "R", "namespace": "n", "fields": [{**A, "z": 1, "b": 2}]})
    two = json.dumps({"name": "n.R", "type": "record", "fields": [{"b": 2, "z": 1, **A}]})
    first = api.post("/subjects/s/versions?normalize=true", json={"schema": one}).json()
    assert api.post("/subjects/s/versions?normalize=true", json={"schema": two}).json()["id"] == first["id"]
    assert code(api.post("/subjects/s?normalize=false", json={"schema": one})) == (404, 40403)
    assert api.post("/subjects/s?normalize=true", json={"schema": one}).json()["version"] == 1
    api.put("/config/s", json={"normalize": True})
    assert api.post("/subjects/s", json={"schema": one}).json()["version"] == 1


def test_metadata_comes_back_and_finds_its_version(api: TestClient) -> None:
    register(api, "s", V1, metadata={"properties": {"owner": "a"}})
    register(api, "s", V2, metadata={"properties": {"owner": "b"}})
    assert api.get("/subjects/s/versions/1").json()["metadata"] == {"properties": {"owner": "a"}}
    assert api.get("/subjects/s/metadata?key=owner&value=a").json()["version"] == 1
    assert code(api.get("/subjects/s/metadata?key=owner&value=c")) == (404, 40403)


# --- two registries ---


def test_two_registries_on_one_log_agree_at_once(api: TestClient, log: MemoryLog) -> None:
    other = SchemaStore(log.view())
    other.open()
    with TestClient(create_app(other)) as second:
        assert register(api, "s", V1)["id"] == 1
        assert second.get("/schemas/ids/1").status_code == 200  # not "no such schema": that would cost somebody's data
        assert register(second, "s", V1)["id"] == 1
        assert register(second, "t", V2)["id"] == 2
        assert api.get("/subjects/t/versions/1").json() == second.get("/subjects/t/versions/1").json()
