"""Which records may be handled now: one at a time per key, different keys side by side. Pure: times come in.

A *task* is the records of one key in one message, in order. A key's tasks run one behind the other; a task that failed
keeps its key until it is due again, so nothing of that key passes it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.consume.tracks import Item
from pipeline.model.record import Record
from pipeline.model.shards import Place


@dataclass(slots=True, eq=False)
class Progress:
    """Which records of a message are handled; the first ``prefix`` are. A thread that handled one sets its flag; ``advance``
    belongs to the reader's thread."""

    item: Item
    flags: bytearray
    prefix: int = 0

    def advance(self) -> int:
        while self.prefix < len(self.flags) and self.flags[self.prefix]:
            self.prefix += 1
        return self.prefix


@dataclass(slots=True, eq=False)
class Task:
    """Records of one key in one message: ``indices`` are their places among those to handle. ``at`` counts the handled ones;
    ``attempts`` and ``first_ms`` are of the record there. ``leaving`` asks it to stop behind that record."""

    key: str
    progress: Progress
    records: Sequence[Record]
    indices: Sequence[int]
    at: int = 0
    attempts: int = 0
    first_ms: int = 0
    leaving: bool = False

    @property
    def place(self) -> Place:
        return self.progress.item.track.place


@dataclass(slots=True)
class KeyedTasks:
    """Not thread-safe: its pool locks. ``by_key`` False puts all records into one row."""

    by_key: bool = True
    waiting_records: int = 0
    _rows: dict[str, deque[Task]] = field(default_factory=dict)
    _ready: deque[Task] = field(default_factory=deque)
    _later: list[tuple[float, int, Task]] = field(default_factory=list)
    _count: int = 0

    def add(self, item: Item, records: Sequence[Record], skip: int = 0) -> Progress:
        """A message's records, those before ``skip`` being handled."""
        progress = Progress(item, bytearray(len(records)), skip)
        groups: dict[str, list[int]] = {}
        if self.by_key:
            for index, record in enumerate(records[skip:], skip):
                groups.setdefault(record.key, []).append(index)
        elif len(records) > skip:
            groups[""] = list(range(skip, len(records)))
        for key, indices in groups.items():
            task = Task(key, progress, [records[index] for index in indices], indices)
            row = self._rows.setdefault(key, deque())
            row.append(task)
            if len(row) == 1:
                self._ready.append(task)
        self.waiting_records += len(records) - skip
        return progress

    def take(self, now: float) -> Task | None:
        """A task that may run now; it holds its key until ``finished`` or ``again``."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        return self._ready.popleft() if self._ready else None

    def due(self) -> float | None:
        """When the next failed task may be taken again; None if none waits."""
        return self._later[0][0] if self._later else None

    def again(self, task: Task, at: float) -> None:
        """Its record failed: the key waits until ``at``."""
        self._count += 1
        heapq.heappush(self._later, (at, self._count, task))

    def finished(self, task: Task) -> None:
        """A task is through, or given up with its partition."""
        self.waiting_records -= len(task.records) - task.at
        row = self._rows.get(task.key)
        if row is None or row[0] is not task:
            return  # dropped in the meantime
        row.popleft()
        if row:
            self._ready.append(row[0])
        else:
            del self._rows[task.key]

    def drop(self, places: set[Place], running: set[Task]) -> None:
        """Forget the tasks of partitions that go to others, except those that run just now."""
        for key in list(self._rows):
            row = self._rows[key]
            head = row[0]
            kept = deque(task for task in row if task.place not in places or task in running)
            self.waiting_records -= sum(len(task.records) - task.at for task in row if task not in kept)
            if kept:
                self._rows[key] = kept
                if kept[0] is not head:
                    self._ready.append(kept[0])
            else:
                del self._rows[key]
        self._ready = deque(task for task in self._ready if task.place not in places)
        self._later = [entry for entry in self._later if entry[2].place not in places]
        heapq.heapify(self._later)
