"""What headrace.yml may say. Every option states its default, its bounds and its unit.

Pure values: reading files and the environment is ``load.py``'s.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr, field_validator, model_validator

from pipeline.config.gold import GoldOptions, check_gold
from pipeline.config.maintenance import Keep, Maintenance, check_keep
from pipeline.config.merge import Merge
from pipeline.config.ordered import Ordered, check_alone
from pipeline.config.quality import Rule, check_rules
from pipeline.config.transform import Step, check_steps
from pipeline.errors import ConfigError, UnknownStreamError

KIB, MIB = 1024, 1024 * 1024
STREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")  # no dots: `<stream>.control` and `<stream>.2` are ours
TABLE_NAME = re.compile(r"(bronze|silver|gold)\.[A-Za-z][A-Za-z0-9_]{0,99}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Aggregation(_Strict):
    """How records are packed. An aggregate is sealed by whichever bound is met first."""

    bytes_max: int = Field(256 * KIB, ge=1 * KIB, le=64 * MIB, description="uncompressed bytes of an aggregate")
    records_max: int = Field(10_000, ge=1, le=1_000_000, description="records of an aggregate")
    linger_ms: int = Field(100, ge=0, le=600_000, description="how long the first record of an aggregate waits for others")


RELAXED = (
    "relaxed: no barrier. Records that reach a shard after its seal, before this producer hears of the reshard (a second at "
    "most), are acknowledged and then lost: they are not in the stream. See docs/ordering.md"
)


class ProducerSettings(_Strict):
    """Bounds of a producer."""

    buffer_bytes_max: int = Field(64 * MIB, ge=1 * MIB, description="encoded records that wait or are under way")
    buffer_records_max: int = Field(1_000_000, ge=1)
    put_timeout_s: float = Field(60.0, ge=0, description="how long put waits for room before it raises BufferFullError")
    message_bytes_max: int = Field(1_000_000, ge=1 * KIB, description="largest message that the broker takes")
    expiry_s: float | None = Field(None, gt=0, description="how long a record may wait before it is first sent")
    on_expiry: Literal["fail", "dead_letter"] = "fail"
    shard_bytes_per_s: int | None = Field(None, ge=1, description="rate limit of each shard, before compression")
    shard_records_per_s: int | None = Field(None, ge=1)
    in_flight_max: int = Field(64, ge=1, le=10_000, description="aggregates under way per shard")
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    acks: Literal["strict", "relaxed"] = Field("strict", description=RELAXED)


class Claims(_Strict):
    """Where records above the message limit lie, while their messages carry a reference (claim check)."""

    url: str = Field(description="a folder (file:///…), s3://bucket/prefix?region=…, or another URL that fsspec knows")
    bytes_max: int = Field(16 * MIB - KIB, ge=1 * KIB, le=16 * MIB - KIB, description="largest record, for readers too")


def _aggregation(value: Any) -> Any:
    return None if value in ("none", None, False) else value


class StreamConfig(_Strict):
    """A stream: a data topic, its control topic, its shards, its schema subject and its ordering mode."""

    name: str = ""
    schema_path: Path | None = Field(None, alias="schema", description="Avro schema of the values; only other formats go without")
    format: Literal["headrace", "avro", "json", "bytes"] = Field(
        "headrace", description="avro, json, bytes: a topic of other producers, one record a message, that is only consumed"
    )
    shards: int = Field(4, ge=1, le=10_000, description="first shards; split and merge change them later")
    partitions_max: int = Field(500, ge=1, le=100_000)
    key: str | None = Field(None, description="column that put_many and `headrace produce` take the partition key from")
    ordering: Literal["strict", "salted"] = "strict"
    aggregation: Annotated[Aggregation | None, BeforeValidator(_aggregation)] = Field(default_factory=lambda: Aggregation())
    dedup: str = "off"
    foreign: Literal["reject", "accept"] = "reject"
    claims: Claims | None = Field(None, description="take records above the message limit into a file store")
    producer: ProducerSettings = Field(default_factory=lambda: ProducerSettings())

    @field_validator("dedup")
    @classmethod
    def _known_dedup(cls, value: str) -> str:
        if not re.fullmatch(r"off|exact|window [1-9][0-9]*(s|m|h|d)", value):
            raise ValueError("expected off, exact, or `window 1h` (a number and s, m, h or d)")
        return value

    @model_validator(mode="after")
    def _has_schema(self) -> StreamConfig:
        if self.schema_path is None and self.format == "headrace":
            raise ValueError("schema: is missing (only a foreign topic, `format: avro|json|bytes`, has none)")
        return self

    @property
    def dedup_window_ms(self) -> int | None:
        """How long explicit dedup ids are remembered by consumers; None where they are not."""
        if not self.dedup.startswith("window "):
            return None
        number, unit = int(self.dedup[7:-1]), self.dedup[-1]
        return number * {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}[unit]

    @property
    def avro_schema(self) -> Path:
        """The path of the value schema. Raises ConfigError for a foreign topic without one, or that is not for writing."""
        if self.schema_path is None or self.format != "headrace":
            raise ConfigError(f"stream {self.name} is a foreign topic (`format: {self.format}`): it can only be consumed")
        return self.schema_path

    @model_validator(mode="after")
    def _expiry_above_linger(self) -> StreamConfig:
        linger_ms = self.aggregation.linger_ms if self.aggregation else 0
        if self.producer.expiry_s is not None and self.producer.expiry_s * 1000 <= linger_ms:
            raise ValueError(f"expiry_s has to be longer than linger_ms ({linger_ms} ms), or every record would expire")
        return self

    @property
    def topic(self) -> str:
        return self.name

    @property
    def control_topic(self) -> str:
        return f"{self.name}.control"

    @property
    def dead_topic(self) -> str:
        return f"{self.name}.dead"

    @property
    def subject(self) -> str:
        return f"{self.name}-value"


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class TableConfig(GoldOptions):
    """A Delta table and what it is made from."""

    name: str = ""
    sources: Annotated[list[str], BeforeValidator(_list)] = Field(alias="from", min_length=1)
    cluster_by: list[str] = Field(default_factory=list)
    merge: Merge | None = None
    sql: Path | None = None
    transform: list[Step] = Field(default_factory=list)
    expect: list[Rule] = Field(default_factory=list)
    ordered: Ordered | None = None
    keep: Keep | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> TableConfig:
        if self.ordered is not None:
            check_alone(self.layer, [name for name in ("merge", "sql", "mode", "expect", "transform") if getattr(self, name)])
        check_keep(self.layer, self.keep)
        check_steps(self.layer, self.transform)
        check_rules(self.layer, self.expect)
        return self

    @model_validator(mode="after")
    def _options_go_together(self) -> TableConfig:
        check_gold(self.name, self.sources, self.sql, self)
        return self

    @property
    def layer(self) -> str:
        return self.name.partition(".")[0]


class Connection(_Strict):
    """Where Kafka and the registry are. Every client setting is held as a secret, since which ones are is the client's
    affair; ``kafka_settings`` gives them to the client alone."""

    bootstrap: str = ""
    registry: str = ""
    kafka: dict[str, SecretStr] = Field(default_factory=dict)
    registry_auth: SecretStr | None = Field(None, description="user:password")
    cluster_id: str | None = Field(None, description="refuse any other cluster")

    @field_validator("kafka", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {str(k): str(v).lower() if isinstance(v, bool) else str(v) for k, v in value.items()}

    @field_validator("registry")
    @classmethod
    def _no_password_in_url(cls, value: str) -> str:
        if value and (not value.startswith(("http://", "https://")) or not urlsplit(value).hostname):
            raise ValueError("expected a URL such as https://registry:8081")
        if urlsplit(value).password:
            raise ValueError("expected no password in the URL: put user:password into registry_auth")
        return value

    def kafka_settings(self) -> dict[str, str]:
        """librdkafka settings in the clear, bootstrap.servers included. Never log them."""
        return {"bootstrap.servers": self.bootstrap} | {k: v.get_secret_value() for k, v in self.kafka.items()}


class MetricsSettings(_Strict):
    """The metrics endpoint that each process has: producers, consumers, jobs."""

    enabled: bool = True
    host: str = Field("127.0.0.1", min_length=1, description="the address to listen on; 0.0.0.0 for other machines too")
    port: int = Field(0, ge=0, le=65_535, description="0: a free one; where another process has it, a free one too")
    pushgateway: str = Field("", description="URL of a Prometheus Pushgateway for jobs that end (available-now); none by default")


class Config(_Strict):
    """headrace.yml after checking. Relative paths are resolved against the file's folder."""

    profile: str = "embedded"
    profiles: dict[str, Connection] = Field(default_factory=dict)
    warehouse: str = ".headrace/warehouse"
    streams: dict[str, StreamConfig] = Field(default_factory=dict)
    tables: dict[str, TableConfig] = Field(default_factory=dict)
    references: dict[str, Path] = Field(default_factory=dict)
    metrics: MetricsSettings = Field(default_factory=lambda: MetricsSettings())
    maintenance: Maintenance = Field(default_factory=lambda: Maintenance())
    _path: Path = PrivateAttr(default=Path("headrace.yml"))
    _connection: Connection | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _sources_exist(self) -> Config:
        for name, table in self.tables.items():
            known = self.streams if table.layer == "bronze" else self.tables
            for source in table.sources:
                if source not in known:
                    kind = "stream" if table.layer == "bronze" else "table"
                    raise ValueError(f"tables.{name}.from: no {kind} {source!r}; there are: {', '.join(sorted(known)) or 'none'}")
        return self

    @model_validator(mode="after")
    def _merges_fit(self) -> Config:
        for name, table in self.tables.items():
            if table.layer != "silver":
                if table.merge is not None:
                    raise ValueError(f"tables.{name}.merge: only silver tables merge")
                continue
            if table.merge is None and table.ordered is None:
                raise ValueError(f"tables.{name}.merge: a silver table needs merge: {{keys: […]}}, or ordered:")
            if len(table.sources) != 1 or self.tables[table.sources[0]].layer != "bronze":
                raise ValueError(f"tables.{name}.from: a silver table is made from one bronze table")
            stream = self.streams[self.tables[table.sources[0]].sources[0]]
            if table.ordered is not None and stream.ordering != "strict":
                raise ValueError(f"tables.{name}.ordered: stream {stream.name} is {stream.ordering}: its keys have no order")
            if table.merge is not None and stream.ordering == "salted" and table.merge.sequence_by is None:
                raise ValueError(
                    f"tables.{name}.merge: sequence_by is missing: stream {stream.name} is salted, so the log does not order the "
                    "records of a key: name a column that does"
                )
        return self
    @field_validator("warehouse")
    @classmethod
    def _usable_url(cls, value: str) -> str:
        scheme, found, rest = value.partition("://")
        if found and scheme in ("s3", "s3n"):
            raise ValueError(f"expected s3a://{rest.rpartition('@')[2]}: Spark's file system for S3 has that name")
        if scheme == "s3a" and (not rest.split("/")[0] or "@" in rest.split("/")[0]):
            raise ValueError("expected s3a://bucket/folder; keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        return value

    @property
    def path(self) -> Path:
        """The file that was read."""
        return self._path

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return self._path.parent

    @property
    def connection(self) -> Connection:
        """Where the chosen profile's cluster is. Raises ConfigError where the embedded stack is not up."""
        if self._connection is None:
            raise ConfigError(
                f"{self._path}: profile embedded needs the embedded stack, which is not up here: run `headrace up` "
                "(or set HEADRACE_HOME to where it is), or choose another profile"
            )
        return self._connection

    def stream(self, name: str) -> StreamConfig:
        """The stream's configuration. Raises UnknownStreamError."""
        if name not in self.streams:
            there = ", ".join(sorted(self.streams)) or "none"
            raise UnknownStreamError(f"no stream {name!r} in {self._path}; there are: {there}. Add it under `streams:`")
        return self.streams[name]

    def bronze_of(self, stream: str) -> list[str]:
        """The bronze tables that are made from a stream."""
        return [name for name, table in self.tables.items() if table.layer == "bronze" and stream in table.sources]

    def is_followed(self, table: str) -> bool:
        """Whether a gold table reads the changes of this one."""
        return any(table in one.sources and (one.window or one.mode == "incremental") for one in self.tables.values())

    def table(self, name: str) -> TableConfig:
        """The table's configuration. Raises ConfigError."""
        if name not in self.tables:
            there = ", ".join(sorted(self.tables)) or "none"
            raise ConfigError(f"no table {name!r} in {self._path}; there are: {there}. Add it under `tables:`")
        return self.tables[name]
