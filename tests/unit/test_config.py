"""headrace.yml: what is taken, and how a mistake is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigError, UnknownStreamError

GOOD = """\
profile: prod
profiles:
  prod:
    bootstrap: "k1:9093,k2:9093"
    registry: "https://registry:8081"
    registry_auth: "me:${REGISTRY_PASSWORD}"
    kafka: {security.protocol: SASL_SSL, sasl.password: "${KAFKA_PASSWORD}"}
  other: {bootstrap: "x:1", registry: "http://x:2", kafka: {sasl.password: "${NOT_SET}"}}
warehouse: tables
streams:
  flights: {schema: schemas/f.avsc, shards: 8, key: tailnum, aggregation: {linger_ms: 5}, dedup: exact}
  plain: {schema: schemas/f.avsc, aggregation: none}
tables:
  bronze.flights: {from: flights, cluster_by: [tailnum]}
  silver.flights: {from: bronze.flights, merge: {keys: [flight_id], delete_when: "status = 'X'"}}
  gold.delays: {from: [silver.flights], sql: jobs/sql/delays.sql, mode: refresh}
references: {airlines: data/airlines.csv}
"""
SECRETS = {"KAFKA_PASSWORD": "hunter2 'quoted' ${HOME}", "REGISTRY_PASSWORD": "s3cret"}


def write(folder: Path, text: str) -> Path:
    file = folder / "headrace.yml"
    file.write_text(text)
    return file


def test_a_whole_file_is_read_with_its_paths_resolved(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD), SECRETS)
    stream = config.stream("flights")
    assert (stream.shards, stream.key, stream.schema_path) == (8, "tailnum", tmp_path / "schemas/f.avsc")
    assert stream.aggregation is not None
    assert (stream.aggregation.linger_ms, stream.aggregation.bytes_max) == (5, 262_144)
    assert config.stream("plain").aggregation is None
    assert (stream.topic, stream.control_topic, stream.dead_topic) == ("flights", "flights.control", "flights.dead")
    assert config.warehouse == str(tmp_path / "tables")
    assert config.table("gold.delays").sql == tmp_path / "jobs/sql/delays.sql"
    assert config.table("bronze.flights").sources == ["flights"]
    assert config.references["airlines"] == tmp_path / "data/airlines.csv"


def test_on_off_yes_and_no_are_words_as_keys_and_as_values(tmp_path: Path) -> None:
    tables = """\
tables:
  silver.x: {from: bronze.flights, merge: {keys: [id]}, expect: [{column: country, values: [NO, SE, on, true]}]}
  gold.hours: {from: bronze.flights, window: {on: at, every: 1 hour, watermark: 2 hours, aggregate: {n: count(*)}}}
"""
    config = load_config(write(tmp_path, GOOD.replace("tables:\n", tables)), SECRETS)
    assert config.table("gold.hours").window.on == "at"  # type: ignore[union-attr]
    assert config.table("silver.x").expect[0].values == ["NO", "SE", "on", True]


def test_variables_are_filled_in_once_and_never_parsed(tmp_path: Path) -> None:
    settings = load_config(write(tmp_path, GOOD), SECRETS).connection.kafka_settings()
    assert settings["sasl.password"] == SECRETS["KAFKA_PASSWORD"]
    assert settings["bootstrap.servers"] == "k1:9093,k2:9093"


def test_no_secret_shows_in_reprs_or_dumps(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD), SECRETS)
    connection = config.connection
    for text in (repr(config), str(config), repr(connection), connection.model_dump_json(), config.model_dump_json()):
        assert "hunter2" not in text
        assert "s3cret" not in text


def test_an_unset_variable_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="KAFKA_PASSWORD"):
        load_config(write(tmp_path, GOOD), {"REGISTRY_PASSWORD": "x"})


@pytest.mark.parametrize(
    ("bad", "line", "expected"),
    [
        ("streams:\n  a: {schema: x.avsc, shards: 0}\n", 2, "greater than or equal to 1"),
        ("streams:\n  a:\n    schema: x.avsc\n    shrads: 3\n", 4, "is not an option"),
        ("streams:\n  a: {shards: 3}\n", 2, "schema: is missing"),
        ("streams:\n  a.b: {schema: x.avsc}\n", 2, "letters, digits"),
        ("streams:\n  a: {schema: x.avsc, dedup: sometimes}\n", 2, "window 1h"),
        ("streams:\n  a: {schema: x.avsc, ordering: loose}\n", 2, "'strict' or 'salted'"),
        ("streams: {}\ntables:\n  bronze.x:\n    from: nosuch\n", 4, "no stream 'nosuch'"),
        ("tables:\n  copper.x: {from: y}\n", 2, "bronze.NAME"),
        ("streams:\n  a: {schema: x.avsc}\n  a: {schema: y.avsc}\n", 3, "given twice"),
        ("streams: [\n", 2, "not valid YAML"),
        ("profile: nowhere\n", None, "'nowhere' is not known"),
        ("- a\n- b\n", 1, "expected a mapping"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_what_is_expected(
    tmp_path: Path, bad: str, line: int | None, expected: str
) -> None:
    file = write(tmp_path, bad)
    with pytest.raises(ConfigError) as raised:
        load_config(file, {})
    assert expected in str(raised.value)
    assert (f"{file}:{line}:" if line else str(file)) in str(raised.value)


def test_a_mistaken_secret_is_not_quoted(tmp_path: Path) -> None:
    text = 'profile: p\nprofiles:\n  p: {bootstrap: b, registry: "http://me:topsecret@r:1"}\n'
    with pytest.raises(ConfigError) as raised:
        load_config(write(tmp_path, text), {})
    assert "registry_auth" in str(raised.value)
    assert "topsecret" not in str(raised.value)


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    env = SECRETS | {"HEADRACE__STREAMS__FLIGHTS__SHARDS": "16", "HEADRACE__TABLES__BRONZE_FLIGHTS__CLUSTER_BY": "[a, b]"}
    config = load_config(write(tmp_path, GOOD), env)
    assert config.stream("flights").shards == 16
    assert config.table("bronze.flights").cluster_by == ["a", "b"]


def test_the_file_comes_from_the_environment_when_not_given(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    assert load_config(None, SECRETS | {"HEADRACE_CONFIG": str(file)}).path == file


def test_a_missing_file_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="HEADRACE_CONFIG"):
        load_config(tmp_path / "nosuch.yml", {})


def test_the_embedded_profile_reads_where_the_stack_is(tmp_path: Path) -> None:
    state = {"kafka": {"bootstrap": "127.0.0.1:1234", "cluster_id": "c"}, "registry": {"url": "http://127.0.0.1:5"}}
    (tmp_path / "stack.json").write_text(json.dumps(state))
    file = write(tmp_path, "streams: {}\n")
    connection = load_config(file, {"HEADRACE_HOME": str(tmp_path)}).connection
    assert (connection.bootstrap, connection.registry, connection.cluster_id) == ("127.0.0.1:1234", "http://127.0.0.1:5", "c")


def test_the_embedded_profile_says_to_start_the_stack_when_it_is_down(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "streams: {}\n"), {"HEADRACE_HOME": str(tmp_path)})
    with pytest.raises(ConfigError, match="headrace up"):
        _ = config.connection


def test_unknown_names_list_those_there_are(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD), SECRETS)
    with pytest.raises(UnknownStreamError, match="flights, plain"):
        config.stream("fligths")
    with pytest.raises(ConfigError, match=r"gold\.delays"):
        config.table("gold.nosuch")
