"""One Spark for the whole layer, and lakes of their own for the tests: a stream, its tables, and messages made by hand."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fastavro
import pytest
import yaml
from confluent_kafka import Producer as KafkaProducer
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, Row, SparkSession

from jobs import tables
from jobs.commits import BronzeState, read_commit
from jobs.gold import GoldJob
from jobs.progress import TableProgress
from jobs.run import run_tables
from jobs.session import QUICK_COMPILER, SHORT, spark_session
from pipeline import Producer
from pipeline.config import Config, load_config
from pipeline.kafka.registry_client import RegistryClient
from pipeline.model.keys import hash_key
from pipeline.model.shards import ShardMap
from pipeline.model.stamp import STAMP_HEADER, Stamp, encode_stamp
from pipeline.reshard.control_log import ControlLog, create_stream
from pipeline.schema.envelope import envelope_text
from pipeline.schema.framing import frame
from pipeline.schema.value_schema import parse_schema

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "item", "type": "string"},
        {"name": "number", "type": "int"},
        {"name": "note", "type": ["null", "string"], "default": None},
    ],
}
AT_MS = 1_700_000_000_000
_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def quick_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Jobs that tests start as processes of their own compile as little as the session's Spark does."""
    folder = tmp_path_factory.mktemp("spark-conf")
    (folder / "spark-defaults.conf").write_text("".join(f"{key} {value}\n" for key, value in SHORT.items()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_CONF_DIR", str(folder))
        patch.setenv("SPARK_SUBMIT_OPTS", QUICK_COMPILER)
        yield


@pytest.fixture(scope="session", autouse=True)
def links_looked_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file that gets a line for each process `readlink` that the tests' Sparks start."""
    folder = tmp_path_factory.mktemp("bin")
    noted = folder / "noted"
    noted.touch()
    (folder / "readlink").write_text(f'#!/bin/sh\necho "$*" >> {noted}\nexec {shutil.which("readlink")} "$@"\n')
    (folder / "readlink").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=os.pathsep)
        yield noted


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    session = spark_session("tests", log_file=tmp_path_factory.mktemp("spark") / "spark.log", short=True)
    yield session
    session.stop()


def _replace(file: Path, text: str) -> None:
    """In one step: jobs in other threads read the same files at any time."""
    new = file.with_suffix(f"{file.suffix}.{threading.get_ident()}")
    new.write_text(text)
    new.replace(file)


@dataclass
class Lake:
    """A stream and its tables, all under names not used before."""

    spark: SparkSession
    folder: Path
    stream: str
    options: dict[str, Any]
    table_options: dict[str, Any]
    connection: dict[str, Any] = field(default_factory=dict)
    schema_ids: dict[str, int] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        tables_ = {
            "bronze.orders": {"from": self.stream},
            "silver.orders": {"from": "bronze.orders", "merge": {"keys": ["item"]}},
        } | self.table_options
        profile = {"profile": "other", "profiles": {"other": self.connection}} if self.connection else {"profile": "embedded"}
        _replace(self.folder / "order.avsc", json.dumps(self.options.get("value", ORDER)))
        stream = {"schema": "order.avsc", "shards": 2, "key": "item"} | {k: v for k, v in self.options.items() if k != "value"}
        file = self.folder / "headrace.yml"
        _replace(file, yaml.safe_dump(profile | {"warehouse": "lake", "streams": {self.stream: stream}, "tables": tables_}))
        return load_config(file)

    @property
    def checkpoint(self) -> Path:
        return Path(tables.checkpoint_path(self.config, "bronze.orders"))

    # -- writing -----------------------------------------------------------------------------------------------------

    def create(self) -> None:
        config = self.config
        create_stream(config.connection, config.stream(self.stream))
        schema = parse_schema(self.options.get("value", ORDER))
        registry = RegistryClient(config.connection)
        self.schema_ids["plain"] = registry.register(schema.full_name, schema.text)
        self.schema_ids["packed"] = registry.register(f"{self.stream}-value", envelope_text(schema))

    def put(self, *orders: tuple[str, int], note: str | None = None) -> None:
        """Put (item, number) pairs with the real producer and wait until they are acknowledged."""
        with Producer(self.stream, config=self.config, linger_ms=1) as producer:
            for item, number in orders:
                producer.put({"item": item, "number": number, "note": note}, key=item)
            producer.flush()

    def send(
        self,
        records: Sequence[tuple[int, str, dict[str, Any] | None]],
        *,
        shard: str | None = None,
        producer: str = "hand",
        stamped: bool = True,
        plain: bool = False,
        value: bytes | None = None,
        **other: Any,
    ) -> int:
        """Send one message made by hand of (sequence, key, value) records; returns its offset. ``shard`` defaults to the
        leaf of the first record's key."""
        shard_map = self.shard_map()
        place = shard_map.shards[shard] if shard else shard_map.route(hash_key(records[0][1]))
        first, last = records[0][0], records[-1][0]
        stamp = Stamp(
            other.get("named", place.id), producer, 1, first, last, -1, other.get("count", len(records)), AT_MS
        )
        headers = [(STAMP_HEADER, other.get("stamp", encode_stamp(stamp)))] if stamped else []
        body = value if value is not None else self.encode(records, first, plain)
        key = records[0][1] if plain else place.id
        return self.produce(other.get("partition", place.partition), key.encode(), body, headers)

    def encode(self, records: Sequence[tuple[int, str, dict[str, Any] | None]], first: int, plain: bool) -> bytes | None:
        schema = parse_schema(self.options.get("value", ORDER))
        out = io.BytesIO()
        if plain:
            if records[0][2] is None:
                return None
            fastavro.schemaless_writer(out, schema.parsed, records[0][2])
            return frame(self.schema_ids["plain"], out.getvalue())
        entries = [
            {"seq": seq - first, "key": key, "id": None, "salt": 0, "timestamp": AT_MS + seq, "headers": [], "value": value}
            for seq, key, value in records
        ]
        fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(envelope_text(schema))), {"records": entries})
        return frame(self.schema_ids["packed"], out.getvalue())

    def produce(self, partition: int, key: bytes, value: bytes | None, headers: list[tuple[str, bytes]]) -> int:
        producer = KafkaProducer({"bootstrap.servers": self.config.connection.bootstrap, "linger.ms": 0})
        offsets: list[int] = []
        producer.produce(
            self.stream, value=value, key=key, partition=partition, headers=headers,
            on_delivery=lambda error, message: offsets.append(-1 if error else message.offset()),
        )  # fmt: skip
        assert producer.flush(30) == 0
        assert offsets[0] >= 0
        return offsets[0]

    def shard_map(self) -> ShardMap:
        with ControlLog(self.config.connection, self.config.stream(self.stream)) as control:
            return control.map

    # -- running and reading -----------------------------------------------------------------------------------------

    def run(self, *names: str, mode: str = "available-now", stop: threading.Event | None = None) -> dict[str, TableProgress]:
        return run_tables(self.spark, self.config, names or ["bronze.orders"], mode, stop)

    def read(self, table: str = "bronze.orders", **how: Any) -> DataFrame:
        return tables.read(self.spark, self.config, table, **how)

    def numbers(self, table: str = "bronze.orders") -> list[int]:
        """The numbers of all orders in the table, sorted."""
        return sorted(row["number"] for row in self.read(table).select("number").collect())

    def rejected(self) -> list[Row]:
        return self.read(rejected=True).select("_rejected.*", "_meta").collect()

    def totals(self) -> dict[str, int]:
        return tables.totals(self.spark, self.config, "bronze.orders")

    def version(self, table: str = "bronze.orders") -> int:
        return tables.version(self.spark, tables.table_path(self.config, table))


@pytest.fixture
def lake(new_lake: Callable[..., Lake], tmp_path: Path) -> Callable[..., Lake]:
    """A function that makes a lake; options are the stream's, ``tables=`` adds tables."""
    return partial(new_lake, tmp_path)


@pytest.fixture(scope="session")
def new_lake(stack: Any, spark: SparkSession) -> Callable[..., Lake]:
    """The same for fixtures that outlive a test: the folder comes first."""

    def make(folder: Path, *, create: bool = True, **options: Any) -> Lake:
        name = f"lake-{os.getpid()}-{next(_numbers)}"
        (folder / name).mkdir()
        made = Lake(spark, folder / name, name, options, options.pop("tables", {}))
        if create:
            made.create()
        return made

    return make



@dataclass
class Shelf:
    """Bronze and silver tables made by hand for gold, without Kafka: rows are dictionaries."""

    spark: SparkSession
    folder: Path
    gold: dict[str, Any]
    silver: dict[str, list[str]] = field(default_factory=dict)
    """Name → keys."""
    bronze: Sequence[str] = ()
    ordering: str = "strict"
    offsets: dict[str, int] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        names = [*self.bronze, *self.silver]
        streams = {name: {"schema": "x.avsc", "ordering": self.ordering} for name in names}
        made: dict[str, Any] = {f"bronze.{name}": {"from": name} for name in names}
        made |= {f"silver.{name}": {"from": f"bronze.{name}", "merge": {"keys": keys}} for name, keys in self.silver.items()}
        references = {file.stem: file.name for file in self.folder.glob("*.csv")}
        file = self.folder / "headrace.yml"
        profile = {"profile": "other", "profiles": {"other": {"bootstrap": "127.0.0.1:1", "registry": "http://127.0.0.1:1"}}}
        content = profile | {"warehouse": "lake", "streams": streams, "tables": made | self.gold, "references": references}
        _replace(file, yaml.safe_dump(content))
        return load_config(file)

    def create(self, table: str, columns: str) -> None:
        configured = self.config.table(table)
        meta = "key string, salt int, topic string, partition int, order struct<generation int, offset bigint, index int>"
        ours = f"_meta struct<{meta}, producer string, seq bigint>, _deleted boolean"
        schema = self.spark.createDataFrame([], f"{columns}, {ours}, _rejected struct<reason string>").schema
        tables.create(self.spark, self.config, configured, configured.sources[0], schema)

    def append(self, name: str, *rows: dict[str, Any]) -> None:
        """Rows of one micro-batch of a bronze table."""
        first = self.offsets.get(name, 0)
        self.offsets[name] = first + len(rows)
        state = BronzeState(query="q", micro_batch=first, next={name: {0: first + len(rows)}})
        path = tables.table_path(self.config, f"bronze.{name}")
        ours = {"_deleted": False, "_rejected": None}
        full = [row | ours | {"_meta": self._meta(name, first + at)} for at, row in enumerate(rows)]
        frame = self.spark.createDataFrame(full, self.spark.read.format("delta").load(path).schema)
        frame.write.format("delta").mode("append").option("userMetadata", state.to_json()).save(path)

    def merge(self, name: str, *rows: dict[str, Any]) -> None:
        """Newer rows of a silver table; one with ``_deleted`` is a tombstone."""
        path = tables.table_path(self.config, f"silver.{name}")
        first = self.offsets.get(name, 0)
        self.offsets[name] = first + len(rows)
        full = [{"_deleted": False} | row | {"_meta": self._meta(name, first + at)} for at, row in enumerate(rows)]
        frame = self.spark.createDataFrame(full, self.spark.read.format("delta").load(path).schema)
        same = " AND ".join(f"t.{key} = s.{key}" for key in self.silver[name])
        into = DeltaTable.forPath(self.spark, path).alias("t").merge(frame.alias("s"), same)
        into.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()

    def step(self, table: str) -> bool:
        return GoldJob(self.spark, self.config, table).refresh()

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """A table's rows, sorted; times are microseconds if they are asked for so."""
        found = self.spark.read.format("delta").load(tables.table_path(self.config, table)).selectExpr(*(columns or ["*"]))
        return sorted((tuple(row) for row in found.collect()), key=repr)

    def commit(self, table: str) -> Any:
        path = tables.table_path(self.config, table)
        return read_commit(self.spark, path, tables.version(self.spark, path))

    @staticmethod
    def _meta(name: str, offset: int) -> dict[str, Any]:
        order = {"generation": 0, "offset": offset, "index": 0}
        return {"topic": name, "partition": 0, "order": order, "producer": "hand", "seq": offset, "salt": offset % 3}


@pytest.fixture
def shelf(spark: SparkSession, tmp_path: Path) -> Callable[..., Shelf]:
    """A function that makes a shelf of tables for gold."""
    return partial(Shelf, spark, tmp_path)
