"""A query's Spark checkpoint, read from outside: whose it is, and which offsets its micro-batches cover.

Spark trusts whatever folder it is given. A checkpoint of another table, or one older than its table, would skip or repeat
records without a word, so a marker of ours lies in the folder and is compared before every start.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from pyspark.sql import SparkSession

from jobs.commits import Places
from jobs.storage import move, names, read_text, write_text
from pipeline.errors import TableError

_MARKER = "headrace.json"
_KAFKA_STARTS = "sources/0/0"


@dataclass(frozen=True, slots=True)
class Owner:
    """What a Spark checkpoint belongs to: a table by name and Delta id, and what it reads (a stream, or a table's id)."""

    table: str
    table_id: str
    source: str


@dataclass(frozen=True, slots=True)
class SparkCheckpoint:
    """A checkpoint folder. Every method reads it anew."""

    spark: SparkSession
    path: str

    def query_id(self) -> str | None:
        """The id of the query; None before its first start."""
        text = read_text(self.spark, f"{self.path}/metadata")
        return None if text is None else str(json.loads(text)["id"])

    def newest(self, folder: str) -> int:
        """The newest micro-batch in ``offsets`` (planned) or ``commits`` (done); -1 for none."""
        return max((int(name) for name in names(self.spark, f"{self.path}/{folder}") if name.isdigit()), default=-1)

    def sources(self, micro_batch: int) -> list[Any]:
        """Where a planned micro-batch ends, as each of its sources wrote it; empty if not planned or already cleaned."""
        text = read_text(self.spark, f"{self.path}/offsets/{micro_batch}") if micro_batch >= 0 else None
        if text is None:
            return []
        lines = text.splitlines()
        if len(lines) < 3 or not lines[0].startswith("v1"):
            raise TableError(f"the Spark checkpoint {self.path} is damaged: offsets/{micro_batch} is not what Spark writes")
        return [json.loads(line) for line in lines[2:] if line != "-"]

    def ends(self, micro_batch: int) -> Any | None:
        """The same of a query with one source; None if not planned or already cleaned."""
        found = self.sources(micro_batch)
        return found[0] if found else None

    def stands_at(self, table_id: str) -> int | None:
        """The version of a Delta table of which the query has processed everything; None where it does not read it (yet)."""
        done = self.newest("commits")
        planned = self.sources(done if done >= 0 else self.newest("offsets"))
        mine = [int(one["reservoirVersion"]) for one in planned if isinstance(one, dict) and one.get("reservoirId") == table_id]
        return min(mine) - 1 if mine else None

    def kafka_ends(self, micro_batch: int) -> dict[str, dict[int, int]] | None:
        found = self.ends(micro_batch)
        if found is None:
            return None
        return {topic: {int(p): int(at) for p, at in partitions.items()} for topic, partitions in found.items()}

    def kafka_starts(self, micro_batch: int) -> dict[str, dict[int, int]] | None:
        """Where a planned micro-batch starts; None if that is not known (any more). Partitions that came in with it lack."""
        if micro_batch > 0:
            return self.kafka_ends(micro_batch - 1)
        text = read_text(self.spark, f"{self.path}/{_KAFKA_STARTS}") or ""  # a zero byte, a version, then JSON
        if "{" not in text:
            return None
        found = json.loads(text[text.index("{") :])
        return {topic: {int(p): int(at) for p, at in partitions.items()} for topic, partitions in found.items()}

    def still(self, query: str | None, table: str) -> str:
        """The query's id, as long as it is the one known (None: any). Raises TableError where the folder was taken away or
        replaced: whoever did it wants the query to begin anew, and this one must not go on."""
        found = self.query_id()
        if found is None or query not in (None, found):
            raise TableError(
                f"the Spark checkpoint {self.path} was taken away while {table} was running: it has stopped, start it again"
            )
        return found

    def take_away(self, why: str) -> str | None:
        """Move the folder aside, so that the next start begins anew. A query that runs stops at its next micro-batch
        (``still``). Returns where it lies now; None where there was none."""
        if not names(self.spark, self.path):
            return None
        parent, _, name = self.path.rpartition("/")
        taken = set(names(self.spark, parent))
        number = next(n for n in range(1, len(taken) + 2) if f"{name}.{why}-{n}" not in taken)
        move(self.spark, self.path, f"{self.path}.{why}-{number}")
        return f"{self.path}.{why}-{number}"

    def claim(self, owner: Owner) -> None:
        """Mark the checkpoint as ``owner``'s, or check that it is. Raises TableError where it is somebody else's."""
        text = read_text(self.spark, f"{self.path}/{_MARKER}")
        if text is None:
            if self.query_id() is not None:
                raise TableError(
                    f"the Spark checkpoint {self.path} was not made by Headrace for {owner.table}: move it away, or choose "
                    "another warehouse"
                )
            if self.newest("offsets") >= 0:  # planned by a query that was running when its checkpoint was taken away
                self.take_away("stray")
            self._mark(owner)
            return
        found = json.loads(text)
        if found != asdict(owner):
            wrong = next(key for key in asdict(owner) if found.get(key) != getattr(owner, key))
            raise TableError(
                f"the Spark checkpoint {self.path} belongs to table {found.get('table')} reading {found.get('source')} "
                f"({wrong} differs): it does not fit {owner.table} as it is now. If the table was deleted on purpose, delete "
                "the checkpoint too; else move it away"
            )

    def rebuild(self, owner: Owner, positions: Places) -> tuple[str, str | None]:
        """Make the checkpoint anew: a query that has not run yet and reads on at ``positions``. Returns its id, and where
        the old checkpoint lies now (None: there was none).

        A crash on the way leaves no checkpoint, or one that has no query yet: the next start makes one at the table's own
        positions. The id is new on purpose: Delta would take new rows under an id and number that it knows for a replay.
        """
        moved = self.take_away("replaced")
        query = str(uuid4())
        self._mark(owner)
        write_text(self.spark, f"{self.path}/{_KAFKA_STARTS}", f"\0v1\n{json.dumps(positions)}")
        write_text(self.spark, f"{self.path}/metadata", json.dumps({"id": query}))
        return query, moved

    def _mark(self, owner: Owner) -> None:
        write_text(self.spark, f"{self.path}/{_MARKER}", json.dumps(asdict(owner)))
