"""Whether the promises were kept. Knows (producer, key, sequence) and places in logs; no code of the product.

Within a *pass* over a key (a rewind starts a new one), first handlings rise by sequence, and a record is handled again
only if its reader was lost before it committed it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

Name = tuple[str, int]
"""(producer, sequence): a record."""
At = tuple[tuple[str, int], int, int]
"""((topic, partition), offset, index)."""


class Violation(Exception):
    """A promise that was broken."""


class Checker:
    def __init__(self) -> None:
        self.keys: dict[Name, int] = {}
        self.acknowledged: set[Name] = set()
        self.handled_at: dict[Name, list[At]] = {}
        self._in_pass: set[Name] = set()
        self._last: dict[tuple[str, int], int] = {}
        self._may_come_again: Counter[Name] = Counter()
        self._uncommitted: dict[tuple[object, tuple[str, int]], list[tuple[int, int, Name]]] = {}

    # -- what happens --------------------------------------------------------------------------------------------------

    def put(self, producer: str, key: int, seq: int) -> None:
        known = self.keys.setdefault((producer, seq), key)
        if known != key:
            raise Violation(f"the test is wrong: {producer}/{seq} was put with two keys")

    def acknowledge(self, producer: str, seq: int) -> None:
        self.acknowledged.add((producer, seq))

    def handle(self, reader: object, at: At, producer: str, key: int, seq: int, *, fenced: bool) -> None:
        """``fenced``: the reader does not know yet that its partition went to another, so the record comes again there."""
        name = producer, seq
        if self.keys.get(name) != key:
            raise Violation(f"{producer}/{seq} was handled with key {key}, and was put with {self.keys.get(name)}")
        if name in self._in_pass:
            if not fenced:
                if not self._may_come_again[name]:
                    first = self.handled_at[name][-1]
                    raise Violation(f"repeated: {producer}/{seq} at {at} was handled before at {first}, and nobody crashed")
                self._may_come_again[name] -= 1
        else:
            last = self._last.get((producer, key), -1)
            if last > seq:
                raise Violation(f"out of order: {producer}/{seq} (key {key}) at {at} was handled after {producer}/{last}")
            self._last[producer, key] = seq
            self._in_pass.add(name)
        self.handled_at.setdefault(name, []).append(at)
        if fenced:
            self._may_come_again[name] += 1
        else:
            self._uncommitted.setdefault((reader, at[0]), []).append((at[1], at[2], name))

    def commit(self, reader: object, place: tuple[str, int], offset: int, index: int) -> None:
        """Everything before (offset, index) is committed for good."""
        mine = self._uncommitted.get((reader, place))
        if mine:
            self._uncommitted[reader, place] = [entry for entry in mine if entry[:2] >= (offset, index)]

    def lose(self, reader: object, place: tuple[str, int]) -> None:
        """A reader lost a partition: what it handled and did not commit comes again."""
        for _, _, name in self._uncommitted.pop((reader, place), []):
            self._may_come_again[name] += 1

    def rewind(self, keys: Iterable[int]) -> None:
        """These keys are read anew."""
        again = set(keys)
        self._in_pass = {name for name in self._in_pass if self.keys[name] not in again}
        self._last = {(producer, key): seq for (producer, key), seq in self._last.items() if key not in again}
        self._may_come_again = Counter({n: c for n, c in self._may_come_again.items() if self.keys[n] not in again})

    # -- at the end ----------------------------------------------------------------------------------------------------

    def finish(self, events: Sequence[dict[str, Any]], stamps: dict[tuple[tuple[str, int], int], str]) -> None:
        """``events`` is the raw control log; ``stamps`` tells the shard id that the message at (place, offset) carries."""
        lost = sorted(self.acknowledged - self.handled_at.keys())
        if lost:
            raise Violation(f"lost: {len(lost)} acknowledged records were never handled, the first is {lost[0]}")
        seals = _seals(events)
        for (producer, seq), places in self.handled_at.items():
            for place, offset, _ in places:
                seal = seals.get(stamps[place, offset])
                if seal is not None and offset >= seal:
                    raise Violation(f"void: {producer}/{seq} was handled at {place}@{offset}, where its shard ends at {seal}")


def _seals(events: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The seals, from the raw log: of COMMIT and ABORT of a reshard, the first counts."""
    decided: set[str] = set()
    seals: dict[str, int] = {}
    for event in events:
        if event["type"] in ("COMMIT", "ABORT") and event["reshard"] not in decided:
            decided.add(event["reshard"])
            seals.update(event.get("seals", {}))
    return seals
