"""Marks against a model that remembers everything: the set of (producer, sequence, hash key) accepted."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.model.keys import HASH_SPACE
from pipeline.model.repeats import NO_MARK, Marks, Verdict, is_repeat

property_settings = settings(max_examples=200, deadline=None, database=None, print_blob=True)
CELLS = 16
WIDTH = HASH_SPACE // CELLS


def hash_of(cell: int) -> int:
    return cell * WIDTH + WIDTH // 3


@dataclass
class Log:
    """A stream that splits and merges, with producers that feed each shard in sequence order and start over at random:
    what a reader gets, as (producer, low cell, high cell, records)."""

    rng: random.Random
    ranges: list[tuple[int, int]] = field(default_factory=lambda: [(0, CELLS)])
    source: dict[str, list[int]] = field(default_factory=dict)  # producer -> cell by sequence

    def messages(self, steps: int) -> list[tuple[str, int, int, list[tuple[int, int]]]]:
        out = []
        feeders: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
        accepted: dict[tuple[str, int], int] = {}
        for _ in range(steps):
            what = self.rng.random()
            if what < 0.15:
                self._reshard()
                # Children are fed from the lowest sequence that a parent may lack: repeats of some, never a hole.
                feeders = {}
            producer = self.rng.choice("ab")
            cells = self.source.setdefault(producer, [])
            while len(cells) < 60:
                cells.append(self.rng.randrange(CELLS))
            low, high = self.rng.choice(self.ranges)
            mine = [(seq, cell) for seq, cell in enumerate(cells) if low <= cell < high]
            left = feeders.get((producer, low, high))
            if left is None or self.rng.random() < 0.15:
                # A start, or a start over: anywhere up to the first record that was never in the log.
                missing = next((i for i, (seq, cell) in enumerate(mine) if (producer, seq) not in accepted), len(mine))
                left = mine[self.rng.randint(max(0, missing - 6), missing) :]
            taken = left[: self.rng.randint(1, 4)]
            feeders[producer, low, high] = left[len(taken) :]
            if taken:
                for seq, cell in taken:
                    accepted[producer, seq] = cell
                out.append((producer, low, high, taken))
        return out

    def _reshard(self) -> None:
        at = self.rng.randrange(len(self.ranges))
        low, high = self.ranges[at]
        if self.rng.random() < 0.5 and high - low > 1:
            middle = self.rng.randrange(low + 1, high)
            self.ranges[at : at + 1] = [(low, middle), (middle, high)]
        elif at + 1 < len(self.ranges):
            self.ranges[at : at + 2] = [(low, self.ranges[at + 1][1])]


@property_settings
@given(st.integers(0, 1 << 32), st.integers(0, 60))
def test_a_record_is_a_repeat_if_and_only_if_it_was_accepted_before(seed: int, moved_at: int) -> None:
    marks = Marks()
    accepted: set[tuple[str, int, int]] = set()
    for number, (producer, low, high, records) in enumerate(Log(random.Random(seed)).messages(60)):
        if number == moved_at:  # to another worker
            marks = Marks.from_json(json.loads(json.dumps(marks.to_json())))
        first, last = records[0][0], records[-1][0]
        verdict, ranges = marks.judge(producer, first, last, low * WIDTH, high * WIDTH)
        known = [(producer, seq, cell) in accepted for seq, cell in records]
        if verdict is Verdict.ACCEPT:
            told = [False] * len(records)
        elif verdict is Verdict.REPEAT:
            told = [True] * len(records)
        else:
            told = [is_repeat(ranges, hash_of(cell), seq) for seq, cell in records]
        assert told == known, (producer, low, high, records)
        marks.accept(producer, last, low * WIDTH, high * WIDTH)
        accepted |= {(producer, seq, cell) for seq, cell in records}


cells = st.integers(0, CELLS - 1)
spans = st.tuples(cells, st.integers(1, CELLS)).map(lambda s: (s[0], min(CELLS, s[0] + s[1])))
Accepts = list[tuple[str, int, tuple[int, int]]]
accepts = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), spans), max_size=15)


class Cells:
    """Marks, one number a cell: nothing to join, nothing to cut."""

    def __init__(self) -> None:
        self.seqs: dict[tuple[str, int], int] = {}

    def accept(self, producer: str, seq: int, low: int, high: int) -> None:
        for cell in range(low, high):
            self.seqs[producer, cell] = max(self.seqs.get((producer, cell), NO_MARK), seq)

    def replace(self, low: int, high: int, other: Cells) -> None:
        for producer in "ab":
            for cell in range(low, high):
                self.seqs[producer, cell] = other.seqs.get((producer, cell), NO_MARK)

    def same_as(self, marks: Marks) -> bool:
        for producer in "ab":
            _, ranges = marks.judge(producer, 0, 0, 0, HASH_SPACE)
            for cell in range(CELLS):
                found = [r.seq for r in ranges if r.low <= hash_of(cell) < r.high]
                if found != [self.seqs.get((producer, cell), NO_MARK)]:
                    return False
        return True


def both(taken: Accepts) -> tuple[Marks, Cells]:
    marks, model = Marks(), Cells()
    for producer, seq, (low, high) in taken:
        marks.accept(producer, seq, low * WIDTH, high * WIDTH)
        model.accept(producer, seq, low, high)
    return marks, model


@property_settings
@given(accepts, accepts, st.lists(spans, max_size=4))
@example([("a", 3, (0, 16))], [], [(4, 8)])
@example([("a", 3, (0, 8)), ("a", 3, (8, 16))], [("b", 1, (2, 3))], [(0, 16)])
def test_marks_agree_with_one_number_a_cell(first: Accepts, second: Accepts, taken_over: list[tuple[int, int]]) -> None:
    marks, model = both(first)
    other, other_model = both(second)
    assert model.same_as(marks)
    for low, high in taken_over:
        marks.replace(low * WIDTH, high * WIDTH, other)
        model.replace(low, high, other_model)
        assert model.same_as(marks)
    assert other_model.same_as(other), "replacing changed its source"


@property_settings
@given(accepts, spans)
def test_a_part_of_the_marks_is_what_another_reader_takes_over(taken: Accepts, span: tuple[int, int]) -> None:
    low, high = span
    marks, model = both(taken)
    moved = Marks.from_json(json.loads(json.dumps(marks.to_json(low * WIDTH, high * WIDTH))))
    part = Cells()
    part.replace(low, high, model)
    assert part.same_as(moved)
    assert Marks.from_json(marks.to_json()) == marks.copy() == marks


@property_settings
@given(accepts, spans, st.integers(0, 30), st.integers(0, 30))
def test_judging_changes_nothing_and_agrees_with_every_cell(taken: Accepts, span: tuple[int, int], one: int, two: int) -> None:
    low, high = span
    first, last = sorted((one, two))
    marks, model = both(taken)
    verdict, ranges = marks.judge("a", first, last, low * WIDTH, high * WIDTH)
    seqs = [model.seqs.get(("a", cell), NO_MARK) for cell in range(low, high)]
    if all(seq < first for seq in seqs):
        assert verdict is Verdict.ACCEPT
    elif all(seq >= last for seq in seqs):
        assert verdict is Verdict.REPEAT
    else:
        assert verdict is Verdict.PARTLY
    for cell, seq in zip(range(low, high), seqs, strict=True):
        assert [is_repeat(ranges, hash_of(cell), at) for at in (first, last)] == [at <= seq for at in (first, last)]
    assert model.same_as(marks)


@property_settings
@given(accepts)
def test_the_state_is_as_small_as_the_history_allows(taken: Accepts) -> None:
    marks, _ = both(taken)
    for producer in marks.to_json().values():
        ranges = producer["ranges"]
        assert all(left[1] != right[0] or left[2] != right[2] for left, right in itertools.pairwise(ranges))
    whole, _ = both([*taken, ("a", 31, (0, CELLS)), ("b", 31, (0, CELLS))])
    assert all(len(producer["ranges"]) == 1 for producer in whole.to_json().values())
