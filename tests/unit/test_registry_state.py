"""The replay of the topic: Confluent's own records, in the order in which they lie, compacted or not."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DecodeError
from pipeline.registry import configuring, deleting, registering
from pipeline.registry.errors import RegistryError
from pipeline.registry.log import MemoryLog
from pipeline.registry.records import (
    MAX_ID_KEY,
    Reference,
    SchemaRecord,
    SchemaVersion,
    decode,
    erase_schema,
    schema_key,
    write_delete_subject,
    write_max_ids,
    write_schema,
    write_setting,
)
from pipeline.registry.schemas import SchemaRequest
from pipeline.registry.state import RegistryState
from pipeline.registry.store import SchemaStore

# As a Confluent registry wrote them, in several of its versions.
CONFLUENT = [
    ('{"keytype":"NOOP","magic":0}', None),
    (
        '{"keytype":"SCHEMA","subject":"orders-value","version":1,"magic":1}',
        '{"subject":"orders-value","version":1,"id":1,"schema":"\\"string\\"","deleted":false}',
    ),
    (
        '{"keytype":"SCHEMA","subject":"users-value","version":1,"magic":1}',
        '{"subject":"users-value","version":1,"id":2,"md5":"1B2M2Y8AsgTpgAmY7PhCfg==","schemaType":"AVRO",'
        '"references":[{"name":"x","subject":"orders-value","version":1}],"metadata":{"properties":{"owner":"me"}},'
        '"schema":"\\"int\\"","deleted":false}',
    ),
    ('{"keytype":"CONFIG","subject":"users-value","magic":0}', '{"subject":"users-value","compatibilityLevel":"FULL"}'),
    ('{"keytype":"CONFIG","magic":0}', '{"compatibilityLevel":"NONE"}'),
    ('{"keytype":"MODE","subject":null,"magic":0}', '{"mode":"READONLY"}'),
    ('{"keytype":"CONTEXT","tenant":"default","context":".x"}', '{"tenant":"default","context":".x"}'),
    ('{"keytype":"CLEAR_SUBJECT","subject":"a","magic":0}', '{"subject":"a"}'),
    ('{"keytype":"ASSOC","tenant":"default"}', '{"guid":"g"}'),
    (
        '{"keytype":"SCHEMA","subject":"gone-value","version":1,"magic":1}',
        '{"subject":"gone-value","version":1,"id":7,"schemaType":"PROTOBUF","schema":"message M {}","deleted":true}',
    ),
    ('{"keytype":"DELETE_SUBJECT","subject":"orders-value","magic":0}', '{"subject":"orders-value","version":1}'),
]


def replay(records: Iterable[tuple[Any, Any]]) -> RegistryState:
    state = RegistryState()
    for key, value in records:
        raw_key = key.encode() if isinstance(key, str) else key
        raw_value = value.encode() if isinstance(value, str) else value
        state.apply([decode(raw_key, raw_value, 5)])
    return state


def version(subject: str, number: int, schema_id: int, schema: str = '"int"', **more: Any) -> SchemaVersion:
    return SchemaVersion(subject, number, schema_id, schema, **more)


def test_a_topic_of_confluents_registry_is_taken_over() -> None:
    state = replay(CONFLUENT)
    assert state.subject_names() == ["users-value"]
    assert state.subject_names(deleted=True) == ["gone-value", "orders-value", "users-value"]
    users = state.version("users-value", 1)
    assert users is not None
    assert (users.id, users.references, users.metadata) == (
        2,
        (Reference("x", "orders-value", 1),),
        {"properties": {"owner": "me"}},
    )
    assert [one.subject for one in state.by_id(1)] == ["orders-value"]
    assert [one.subject for one in state.referrers("orders-value", 1)] == ["users-value"]
    assert (state.level("users-value"), state.level("other"), state.mode("users-value")) == ("FULL", "NONE", "READONLY")
    assert state.next_id(".") == 8


def test_keys_are_written_byte_for_byte_as_confluent_writes_them() -> None:
    assert schema_key("orders-value", 1) == CONFLUENT[1][0].encode()
    assert write_setting("CONFIG", "users-value", {"compatibilityLevel": "FULL"}) == tuple(
        text.encode() for text in (CONFLUENT[3][0], CONFLUENT[3][1] or "")
    )
    assert write_setting("CONFIG", None, {"compatibilityLevel": "NONE"})[0] == CONFLUENT[4][0].encode()
    assert write_delete_subject("orders-value", 1) == tuple(text.encode() for text in (CONFLUENT[10][0], CONFLUENT[10][1] or ""))
    assert erase_schema("orders-value", 1) == (CONFLUENT[1][0].encode(), None)


def test_a_version_is_read_as_it_was_written() -> None:
    value = version(
        "a/ü:b", 3, 9, '{"type":"int","doc":"é"}', references=(Reference("n", "s", 2),), metadata={"tags": {}}, deleted=True
    )
    record = decode(*write_schema(value))
    assert record == SchemaRecord("a/ü:b", 3, value)
    assert isinstance(record, SchemaRecord)
    assert record.value is not None
    assert record.value.guid == value.guid


def test_the_guid_is_that_of_confluent() -> None:
    # MD5 of the text, and of name, subject and version (4 bytes) of each reference.
    assert version("s", 1, 1, '"string"').guid == "095d71cf-1255-6b9d-5e33-0ad575b3df5d"
    plain, other = version("s", 1, 1).guid, version("t", 2, 5).guid
    assert plain == other
    assert plain != version("s", 1, 1, references=(Reference("a", "b", 1),)).guid
    assert plain != version("s", 1, 1, metadata={"properties": {}}).guid


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"{}"),
        (b"", b""),
        (b"[]", b"{}"),
        (b'{"keytype":"SCHEMA","subject":"s","version":"x","magic":1}', None),
        (b'{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}', b'{"schema":5,"id":1}'),
        (b'{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}', b'{"schema":"x"}'),
        (b'{"keytype":"DELETE_SUBJECT","subject":"s","magic":0}', b"\x00"),
        (MAX_ID_KEY, b'{"maxIds":3}'),
        (b"[" * 100_000, None),
    ],
)
def test_bytes_that_are_no_record_are_a_decode_error_without_their_content(key: bytes | None, value: bytes | None) -> None:
    with pytest.raises(DecodeError, match="not in Confluent's format"):
        decode(key, value)


def test_an_id_that_means_a_schema_never_means_another() -> None:
    state = replay([write_schema(version("a", 1, 1, '"int"')), write_schema(version("b", 1, 1, '"long"'))])
    assert [one.schema for one in state.by_id(1)] == ['"int"']
    assert state.subject_names() == ["a"]
    assert state.conflicts == 1


def test_the_last_record_of_a_key_counts_as_it_does_after_compaction() -> None:
    first, second = write_schema(version("a", 1, 1, '"int"')), write_schema(version("a", 1, 2, '"long"'))
    for records in ([first, second], [second]):
        state = replay(records)
        assert [one.id for one in state.versions("a")] == [2]
        assert state.by_id(1) == []
        assert state.next_id(".") == 3


def test_an_erased_version_leaves_its_ids_reserved() -> None:
    state = replay([write_schema(version("a", 1, 5)), write_max_ids({".": 5}), erase_schema("a", 1)])
    compacted = replay([write_max_ids({".": 5})])
    assert state.subject_names(deleted=True) == []
    assert state.next_id(".") == compacted.next_id(".") == 6


def test_deleting_a_subject_hides_what_was_there_and_not_what_comes_later() -> None:
    records = [write_schema(version("a", 1, 1)), write_delete_subject("a", 1), write_schema(version("a", 2, 2, '"long"'))]
    state = replay(records)
    assert [one.version for one in state.versions("a")] == [2]
    assert [(one.version, one.deleted) for one in state.versions("a", deleted=True)] == [(1, True), (2, False)]


def test_deleting_a_subject_reaches_up_to_its_version_only() -> None:
    state = replay([write_schema(version("a", 1, 1)), write_schema(version("a", 2, 2, '"long"')), write_delete_subject("a", 1)])
    assert [one.version for one in state.versions("a")] == [2]


def test_settings_go_by_subject_then_context_then_all() -> None:
    state = replay(
        [
            write_setting("CONFIG", None, {"compatibilityLevel": "NONE"}),
            write_setting("CONFIG", ":.x:", {"compatibilityLevel": "FULL"}),
            write_setting("CONFIG", ":.x:s", {"compatibilityLevel": "FORWARD"}),
        ]
    )
    assert [state.level(name) for name in (":.x:s", ":.x:t", "s", ":.y:s", None)] == [
        "FORWARD",
        "FULL",
        "NONE",
        "BACKWARD",
        "NONE",
    ]


# --- any sequence of requests, by any registry ---

SCHEMAS = [
    json.dumps({"type": "record", "name": "R", "fields": [{"name": name, "type": "int", "default": 0} for name in names]})
    for names in ("a", "ab", "abc", "b", "")
]


def act(store: SchemaStore, rng: random.Random, erased: set[int]) -> None:
    """One random request; refusals are answers too. An import never names an ``erased`` id: it may give it a new meaning."""
    imported = rng.choice([i for i in range(1, 60) if i not in erased][:9])
    subject, schema = rng.choice("st"), rng.choice(SCHEMAS)
    number, flag = rng.choice([1, 2, 3, -1]), rng.random() < 0.5
    mode = {"mode": rng.choice(["READWRITE", "READWRITE", "READONLY", "IMPORT"])}
    actions = [
        lambda s: registering.register(s, subject, SchemaRequest(schema)),
        lambda s: registering.register(s, subject, SchemaRequest(schema, metadata={"properties": {"n": schema[-9:]}})),
        lambda s: registering.register(s, subject, SchemaRequest(schema, id=imported)),
        lambda s: deleting.delete_version(s, subject, number, permanent=flag),
        lambda s: deleting.delete_subject(s, subject, permanent=flag),
        lambda s: configuring.set_config(s, rng.choice([None, subject]), {"compatibility": rng.choice(["NONE", "FULL"])}),
        lambda s: configuring.set_mode(s, rng.choice([None, subject]), mode, force=flag),
        lambda s: deleting.delete_setting(s, rng.choice(["CONFIG", "MODE"]), rng.choice([None, subject])),
    ]
    weights = [6, 1, 1, 3, 2, 1, 1, 2]
    with contextlib.suppress(RegistryError):
        store.write(rng.choices(actions, weights)[0])


def picture(state: RegistryState) -> Any:
    names = state.subject_names(deleted=True)
    return (
        {name: state.versions(name, deleted=True) for name in names},
        {name: [state.setting(kind, name) for kind in ("CONFIG", "MODE")] for name in ("s", "t", None)},
        state.next_id("."),
        {i: state.by_id(i) for i in range(1, state.next_id("."))},
    )


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_registries_agree_and_ids_never_change_whatever_is_asked(seed: int) -> None:
    rng = random.Random(seed)
    log = MemoryLog()
    stores = [SchemaStore(log.view()) for _ in range(2)]
    for store in stores:
        store.open()
    meaning: dict[int, str] = {}
    for step in range(40):
        act(rng.choice(stores), rng, {i for i in meaning if not stores[0].state.by_id(i)})
        for store in stores:
            store.refresh()
        assert picture(stores[0].state) == picture(stores[1].state), f"seed {seed}, step {step}"
        for i in range(1, stores[0].state.next_id(".")):
            for held in stores[0].state.by_id(i):
                assert meaning.setdefault(i, held.guid) == held.guid, f"seed {seed}, step {step}: id {i} means two schemas"
    log.compact()
    restarted = SchemaStore(log.view())
    restarted.open()
    assert picture(restarted.state) == picture(stores[0].state), f"seed {seed}: not the same after compaction"
