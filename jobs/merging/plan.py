"""What a silver table's settings come to, and which columns they can have. Pure: no Spark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config import Config, Merge
from pipeline.config.merge import HISTORY_COLUMNS
from pipeline.errors import ConfigError, TableError
from pipeline.schema.table_columns import RESERVED_COLUMNS

SETTINGS_PROPERTY = "headrace.merge"
_FORMAT = 2
"""Of the rows as they are stored. 1 kept no dead letters and no partitions."""
CLUSTER_COLUMNS_MAX = 4  # Delta's own
# Types by Spark's simple names, without parameters.
_PRUNABLE = ("tinyint", "smallint", "int", "bigint", "decimal", "string", "date", "timestamp", "timestamp_ntz")
_ATOMIC = (*_PRUNABLE, "boolean", "float", "double", "binary")
# A record's token: what is compared, first to last, below ``sequence_by``. (producer, seq) and (topic, partition, order) name
# one record each; an order token alone is unique within a partition key only, and a table's key need not be that one.
BY_LOG = ("order", "topic", "partition", "producer", "seq")
BY_SEQUENCE = ("producer", "seq", "order", "topic", "partition")


@dataclass(frozen=True, slots=True)
class MergePlan:
    """``record_key`` is the key column that a tombstone's record key stands for (None: it cannot); ``dedup_window_ms`` is 0
    without dedup and None for ``exact``."""

    table: str
    merge: Merge
    record_key: str | None
    dedup: str
    dedup_window_ms: int | None

    @classmethod
    def of(cls, config: Config, table: str) -> MergePlan:
        """The plan of a silver table. Raises ConfigError."""
        configured = config.table(table)
        if configured.merge is None:
            raise ConfigError(f"tables.{table}.merge: a silver table needs merge: {{keys: […]}}")
        stream = config.stream(config.table(configured.sources[0]).sources[0])
        record_key = stream.key if configured.merge.keys == [stream.key] else None
        return cls(table, configured.merge, record_key, stream.dedup, 0 if stream.dedup == "off" else stream.dedup_window_ms)

    @property
    def keys(self) -> list[str]:
        return self.merge.keys

    @property
    def has_history(self) -> bool:
        return self.merge.scd == 2

    @property
    def token(self) -> tuple[str, ...]:
        """Fields of ``_meta`` that decide between records, after ``sequence_by`` if there is one."""
        return BY_LOG if self.merge.sequence_by is None else BY_SEQUENCE

    def settings(self) -> str:
        """What the stored rows depend on, to be kept as a property of the table."""
        return json.dumps({"format": _FORMAT, **self.merge.model_dump(), "dedup": self.dedup}, sort_keys=True)

    def check_settings(self, kept: str | None) -> None:
        """Raises TableError where the table's rows were made with other settings: new ones would mix with them."""
        if kept == self.settings():
            return
        ways = "give the table another name, or delete it, its Spark checkpoint and its ids, and it is made anew from its source"
        if kept is None or json.loads(kept).get("format") != _FORMAT:
            raise TableError(f"{self.table} was made by another version of Headrace, which stored its rows differently: {ways}")
        before, now = json.loads(kept), json.loads(self.settings())
        changed = [
            f"{name} (was {before.get(name)!r}, is {now.get(name)!r})" for name in now if before.get(name) != now.get(name)
        ]
        raise TableError(f"tables.{self.table}.merge changed since its rows were made: {', '.join(changed)}: {ways}")

    def check_columns(self, columns: Mapping[str, str]) -> None:
        """``columns``: name → type of the records. Raises ConfigError naming the option that does not fit them."""
        there = [name for name in columns if name not in RESERVED_COLUMNS]
        named = {"keys": self.keys, "sequence_by": [self.merge.sequence_by] if self.merge.sequence_by else []}
        for option, names in named.items():
            for name in names:
                at = f"tables.{self.table}.merge.{option}"
                if name not in there:
                    raise ConfigError(f"{at}: there is no column {name!r}; there are: {', '.join(there)}")
                if columns[name].partition("(")[0] not in _ATOMIC:
                    raise ConfigError(f"{at}: the column {name!r} is {columns[name]}: a key or a sequence is a single value")
        if self.merge.ignore_null_updates and set(there) <= {*self.keys, self.merge.sequence_by}:
            raise ConfigError(f"tables.{self.table}.merge.ignore_null_updates: the records have no columns but keys and sequence")
        if self.has_history and (taken := sorted(set(HISTORY_COLUMNS).intersection(there))):
            raise ConfigError(f"tables.{self.table}.merge.scd: 2 makes columns {', '.join(taken)}, which the records have too")

    def prunable(self, columns: Mapping[str, str]) -> list[str]:
        """Keys by whose statistics files are told apart."""
        return [key for key in self.keys if columns[key].partition("(")[0] in _PRUNABLE]

    def cluster_by(self, columns: Mapping[str, str]) -> list[str]:
        """What the files are clustered by where the configuration names nothing."""
        return self.prunable(columns)[:CLUSTER_COLUMNS_MAX]
