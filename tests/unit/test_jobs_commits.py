"""State in commit metadata, exact totals, reactions of the supervisor, Kafka settings, modes: pure, without Spark."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from jobs.assignment import assign_option, check_bounds, places_to_read, starting_option
from jobs.commits import BronzeState, Counts, parse_commit
from jobs.kafka_options import kafka_options
from jobs.mode import parse_mode
from jobs.supervise import Reaction, reaction, supervise
from pipeline.config import Connection
from pipeline.errors import (
    ConfigError,
    RegistryUnavailableError,
    StopError,
    StreamConflictError,
    TableError,
    TrimmedError,
)  # fmt: skip
from pipeline.model.keys import HASH_SPACE
from pipeline.model.shards import COMMIT, CREATED, PREPARE, Shard, ShardMap, shard_event

NPE = (
    "java.lang.NullPointerException: null\n"
    "org.apache.spark.sql.kafka010.KafkaMicroBatchStream$.metrics(KafkaMicroBatchStream.scala:532)"
)


def commit_text(rows: int, rejected: int, metadata: str | None = None) -> str:
    stats = json.dumps({"numRecords": rows, "nullCount": {"_rejected": {"reason": rows - rejected}}})
    info: dict[str, Any] = {"operation": "WRITE"} | ({"userMetadata": metadata} if metadata else {})
    return "\n".join(json.dumps(action) for action in ({"commitInfo": info}, {"add": {"path": "x", "size": 5, "stats": stats}}))


def test_state_survives_the_commit_it_travels_in() -> None:
    state = BronzeState(
        "q", 3, {"t": {0: 1}}, {"t": {0: 9, 11: 4}}, {"p": {"seen": 1, "ranges": []}}, {"t": "id"}, Counts(messages=2), 5, 1,
        Counts(records=7),
    )  # fmt: skip
    commit = parse_commit(4, commit_text(0, 0, state.to_json()))
    assert commit.metadata is not None
    assert BronzeState.from_json(commit.metadata) == state


def test_totals_are_exact_with_partly_repeated_and_rejected_messages() -> None:
    surveyed, before = Counts(messages=5, repeats=3, rejected=1), Counts(records=100, repeats=1)
    state = BronzeState(stamped=20, partly=1, surveyed=surveyed, before=before)
    commit = parse_commit(1, commit_text(rows=14, rejected=2))
    # 20 stamped = 12 good rows + 6 in the message that decoding rejected + 2 repeats left out of a partly repeated one
    assert state.with_commit(commit, lost=6).totals == Counts(messages=5, records=112, repeats=1 + 3 + 2, rejected=2)


def test_commits_of_others_have_no_state_and_newer_formats_stop() -> None:
    assert parse_commit(1, commit_text(1, 0, "by hand")).metadata is None
    assert parse_commit(1, commit_text(1, 0, '{"mine": 1}')).metadata is None
    with pytest.raises(TableError, match="upgrade"):
        parse_commit(1, commit_text(1, 0, '{"headrace": 99}'))


def test_only_known_failures_start_a_query_again() -> None:
    assert reaction(NPE, None) is Reaction.RESTART
    assert reaction("java.lang.NullPointerException: null\nsomething.Else.metrics", None) is Reaction.STOP
    assert reaction("[DELTA_SCHEMA_CHANGED_WITH_VERSION] …", None) is Reaction.RESTART
    assert reaction("org.apache.kafka.common.errors.TimeoutException: fetch", None) is Reaction.RETRY
    assert reaction("anything", RegistryUnavailableError("down")) is Reaction.RETRY
    assert reaction(NPE, TableError("ours")) is Reaction.STOP
    assert reaction("java.lang.OutOfMemoryError", None) is Reaction.STOP


def test_a_known_failure_that_does_not_go_away_stops_the_job() -> None:
    class Failing:
        name, failure = "bronze.t", None
        stopping, wants_restart = threading.Event(), threading.Event()
        starts = 0

        def start(self, mode: Any) -> Any:
            self.starts += 1
            from pyspark.errors import StreamingQueryException

            raise StreamingQueryException(NPE)

        def has_more(self) -> bool:
            return False

    job = Failing()
    with pytest.raises(StopError, match=r"bronze\.t"):
        supervise(job, parse_mode("continuous"), threading.Event())
    assert job.starts == 4


def test_a_child_is_assigned_when_its_parents_are_committed_up_to_their_seals_and_stays_then() -> None:
    half = HASH_SPACE // 2
    shard_map = ShardMap()
    for offset, event in enumerate(
        (
            {"type": CREATED, "hash": "xxh64-42", "subject": "s", "ordering": "strict",
             "shards": [shard_event(Shard("s0", 0, HASH_SPACE, "t", 0))]},
            {"type": PREPARE, "reshard": "r", "parents": ["s0"], "scan_from": {"s0": 0},
             "children": [shard_event(Shard("s1", 0, half, "t", 0)), shard_event(Shard("s2", half, HASH_SPACE, "t", 1))]},
            {"type": COMMIT, "reshard": "r", "seals": {"s0": 10}},
        )
    ):  # fmt: skip
        shard_map = shard_map.apply(event, offset)
    assert places_to_read((), {("t", 0): 9}, shard_map, {}) == {("t", 0)}
    assert places_to_read((), {("t", 0): 10}, shard_map, {}) == {("t", 0), ("t", 1)}
    assert places_to_read([("t", 1)], {}, shard_map, {}) == {("t", 0), ("t", 1)}


def test_assignments_are_written_as_spark_reads_them() -> None:
    places = [("t", 10), ("t", 2), ("t.2", 0)]
    assert json.loads(assign_option(places)) == {"t": [2, 10], "t.2": [0]}
    assert json.loads(starting_option(places, {("t", 2): 7})) == {"t": {"2": 7, "10": -2}, "t.2": {"0": -2}}


def test_a_log_that_lost_unread_records_or_was_cut_stops() -> None:
    check_bounds("bronze.t", {("t", 0): 5}, {("t", 0): (5, 5)})
    with pytest.raises(TrimmedError, match="3 offsets were never read"):
        check_bounds("bronze.t", {("t", 0): 5}, {("t", 0): (8, 9)})
    with pytest.raises(StreamConflictError, match="recreated or truncated"):
        check_bounds("bronze.t", {("t", 0): 5}, {("t", 0): (0, 4)})


def test_kafka_settings_are_translated_for_the_java_client() -> None:
    connection = Connection(
        bootstrap="k:9093", registry="http://r:1",
        kafka={"security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN", "sasl.username": "u", "sasl.password": 'a"b',
               "ssl.ca.location": "/ca.pem", "statistics.interval.ms": "5"},
    )  # fmt: skip
    assert kafka_options(connection) == {
        "kafka.fetch.max.wait.ms": "20",
        "kafka.bootstrap.servers": "k:9093",
        "kafka.security.protocol": "SASL_SSL",
        "kafka.sasl.mechanism": "PLAIN",
        "kafka.sasl.jaas.config": (
            'org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="a\\"b";'
        ),
        "kafka.ssl.truststore.type": "PEM",
        "kafka.ssl.truststore.location": "/ca.pem",
    }


def test_a_security_setting_without_counterpart_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ssl\.keystore\.location"):
        kafka_options(Connection(bootstrap="k:1", registry="http://r:1", kafka={"ssl.keystore.location": "/x.p12"}))


def test_modes_are_read() -> None:
    assert parse_mode("available-now").is_bounded
    assert parse_mode("continuous").trigger() == {"processingTime": "1000 milliseconds"}
    assert parse_mode("10s").interval_s == 10
    assert parse_mode("5 minutes").interval_s == 300
    with pytest.raises(ConfigError):
        parse_mode("often")
