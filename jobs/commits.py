"""What our commits say of themselves: the state that travels in a Delta commit's metadata, and reading it back.

A bronze commit carries everything that the next micro-batch needs (marks, next offsets, totals), so a lost Spark checkpoint
or a restart in the middle of anything finds the state that belongs to the rows that are there, never a newer or older one.
Delta's log is read as the JSON files it is: asking ``DESCRIBE HISTORY`` costs a Spark job each time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pyspark.sql import SparkSession

from jobs.storage import exists, names, read_text
from pipeline.errors import TableError

FORMAT = 1
RESTORED = "restored"
"""In the metadata of a commit that brought a bronze table back to an older version: which one."""
MAINTENANCE, FENCE = "headrace_maintenance", "headrace_fence"
"""Metadata of our commits that hold no positions: what was done to the table, and which query may not write any more."""
USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
Places = dict[str, dict[int, int]]
"""topic → partition → offset."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Messages and records of one micro-batch, or of all so far. ``records`` are good rows; ``rejected`` are messages."""

    messages: int = 0
    bytes: int = 0
    records: int = 0
    repeats: int = 0
    voids: int = 0
    rejected: int = 0
    foreign: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def to_json(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, int]) -> Counts:
        return cls(**{name: int(data.get(name, 0)) for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class BronzeState:
    """A bronze table after one of its commits.

    ``query`` and ``micro_batch`` say which one; ``start`` and ``next`` are the offsets it began at and the next to read, of
    every partition ever read; ``marks`` are as pipeline.model.repeats gives them; ``topic_ids`` tell a recreated topic.
    ``surveyed``, ``stamped`` and ``partly`` (messages of which records may be left out: partly repeated, or redriven) are what
    the survey knew before the write, ``before`` the exact totals before this
    micro-batch; with the commit's own figures they give the totals after it (``totals``).
    """

    query: str = ""
    micro_batch: int = -1
    start: Places = field(default_factory=dict)
    next: Places = field(default_factory=dict)
    marks: Mapping[str, Any] = field(default_factory=dict)
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    surveyed: Counts = Counts()
    stamped: int = 0
    partly: int = 0
    before: Counts = Counts()
    after: Counts | None = None

    @property
    def totals(self) -> Counts:
        return self.before if self.after is None else self.after

    def to_json(self) -> str:
        return json.dumps(
            {
                "headrace": FORMAT,
                "query": self.query,
                "micro_batch": self.micro_batch,
                "start": self.start,
                "next": self.next,
                "marks": self.marks,
                "topic_ids": self.topic_ids,
                "surveyed": self.surveyed.to_json(),
                "stamped": self.stamped,
                "partly": self.partly,
                "before": self.before.to_json(),
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BronzeState:
        return cls(
            query=data["query"],
            micro_batch=int(data["micro_batch"]),
            start=places_of(data["start"]),
            next=places_of(data["next"]),
            marks=data["marks"],
            topic_ids=data["topic_ids"],
            surveyed=Counts.from_json(data["surveyed"]),
            stamped=int(data["stamped"]),
            partly=int(data["partly"]),
            before=Counts.from_json(data["before"]),
        )

    def with_commit(self, commit: Commit, stamped_rows: int | None = None, lost: int = 0) -> BronzeState:
        """The same with exact totals, from what the commit really wrote.

        Every stamped record is a good row, or a repeat left out of a message (partly repeated, or redriven), or *lost* in a
        message that decoding rejected after the survey had accepted it. ``stamped_rows`` are good rows with a stamp (None: all
        good rows).
        """
        good = commit.rows - commit.rejected
        left_out = self.stamped - (good if stamped_rows is None else stamped_rows) - lost if self.partly else 0
        now = replace(self.surveyed, records=good, rejected=commit.rejected, repeats=self.surveyed.repeats + left_out)
        return replace(self, after=self.before + now)


@dataclass(frozen=True, slots=True)
class Commit:
    """One version of a Delta table as its log file tells it. ``rejected`` counts rows with a reason, by the files'
    statistics; None statistics count as none. ``produced_s`` are the oldest and the newest time (UTC, since 1970) at which
    its rows were produced, where the table keeps statistics of that."""

    version: int
    operation: str
    metadata: Mapping[str, Any] | None
    rows: int
    rejected: int
    bytes: int
    files: int
    metrics: Mapping[str, Any]
    produced_s: tuple[float, float] | None = None
    at_ms: int = 0


def log_file(table_path: str, version: int) -> str:
    """Where Delta keeps what a version changed."""
    return f"{table_path}/_delta_log/{version:020d}.json"


def read_commit(spark: SparkSession, table_path: str, version: int) -> Commit | None:
    """The commit of a version; None where the log no longer (or not yet) has its file."""
    text = read_text(spark, log_file(table_path, version))
    return None if text is None else parse_commit(version, text)


def parse_commit(version: int, text: str) -> Commit:
    info: dict[str, Any] = {}
    rows = rejected = size = files = 0
    produced: list[float] = []
    for line in text.splitlines():
        action = json.loads(line) if line.strip() else {}
        info = action.get("commitInfo") or info
        if added := action.get("add"):
            stats = json.loads(added.get("stats") or "{}")
            count = int(stats.get("numRecords", 0))
            nulls = (stats.get("nullCount") or {}).get("_rejected") or {}
            rows += count
            rejected += count - int(nulls.get("reason", count))
            produced += _produced(stats)
            size += int(added["size"])
            files += 1
    metadata, metrics = _ours(info.get("userMetadata")), info.get("operationMetrics") or {}
    span = (min(produced), max(produced)) if produced else None
    at_ms = int(info.get("timestamp") or 0)
    return Commit(version, info.get("operation", ""), metadata, rows, rejected, size, files, metrics, span, at_ms)


def _produced(stats: Mapping[str, Any]) -> list[float]:
    ends = (((stats.get(end) or {}).get("_meta") or {}).get("produced_at") for end in ("minValues", "maxValues"))
    return [datetime.fromisoformat(text).timestamp() for text in ends if text]


def read_checksum(spark: SparkSession, table_path: str, version: int) -> Mapping[str, Any] | None:
    """What Delta notes beside a version about the whole table: its metadata, number of files and bytes. None where it did not."""
    text = read_text(spark, f"{table_path}/_delta_log/{version:020d}.crc")
    found = json.loads(text) if text else None
    return found if isinstance(found, dict) and "metadata" in found else None


def versions(spark: SparkSession, table_path: str) -> list[int]:
    """The versions whose log files are there, ascending."""
    found = (name for name in names(spark, f"{table_path}/_delta_log") if name.endswith(".json"))
    return sorted(int(name[:-5]) for name in found if name[:-5].isdigit())


def newest_version(spark: SparkSession, table_path: str, known: int = -1) -> int:
    """The newest version; -1 where there is none.

    ``known`` is one that was there: later ones are asked for one by one then. A whole log has a file and a checksum for each
    micro-batch of its retention, too many to be listed in every one.
    """
    if known < 0 or not exists(spark, log_file(table_path, known)):
        return max(versions(spark, table_path), default=-1)
    while exists(spark, log_file(table_path, known + 1)):
        known += 1
    return known


def newest_commit_of_ours(
    spark: SparkSession, table_path: str, up_to: int | None = None, *, after: int | None = None
) -> Commit | None:
    """The newest commit with our metadata (up to a version): maintenance commits after it are passed over.

    ``after`` is a version that was there, when a commit of ours later than it is expected: the log is listed only where there
    is none. Raises TableError where the log was cleaned past it, so that nobody starts with empty marks on a table with rows.
    """
    if after is not None:
        for version in range(newest_version(spark, table_path, after), after, -1):
            commit = read_commit(spark, table_path, version)
            if commit is not None and commit.metadata is not None:
                return commit
    known = versions(spark, table_path)
    for version in reversed([one for one in known if up_to is None or one <= up_to]):
        commit = read_commit(spark, table_path, version)
        if commit is not None and commit.metadata is not None:
            return commit
    if known and known[0] > 0:
        raise TableError(
            f"the Delta log of {table_path} no longer has the commit that holds the table's positions (its first version is "
            f"{known[0]}): restore the log from a backup, or make the table anew under another name"
        )
    return None


def _ours(text: str | None) -> Mapping[str, Any] | None:
    try:
        data = json.loads(text) if text else None
    except ValueError:
        return None
    if not isinstance(data, dict) or "headrace" not in data:
        return None
    if data["headrace"] != FORMAT:
        raise TableError(f"a commit was written by another version of Headrace (format {data['headrace']}): upgrade")
    return data


def places_of(data: Mapping[str, Mapping[str, int]]) -> Places:
    return {topic: {int(p): int(offset) for p, offset in partitions.items()} for topic, partitions in data.items()}
