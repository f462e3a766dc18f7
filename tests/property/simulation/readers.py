"""A group of readers: the steps of pipeline/consume/reading.py and checkpoint.py over the real gate, void rule and marks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.consume.assignment import marks_sources, shard_at, starting_positions
from pipeline.model.repeats import Marks, Verdict, is_repeat
from pipeline.model.shards import Place
from pipeline.model.stamp import Stamp, decode_stamp
from tests.property.simulation.resharders import finish_pending
from tests.property.simulation.world import KEY_OF, KEYS, World

Position = tuple[int, int]
"""(offset, index)."""


@dataclass(frozen=True, slots=True)
class Committed:
    position: Position
    marks_at: int | None  # pointer into the marks topic; None where a tool set the position


@dataclass(slots=True)
class InHand:
    place: Place
    offset: int
    stamp: Stamp
    low: int
    high: int
    records: list[tuple[int, int, int]]  # (index, sequence, hash key)
    done: int = 0


class Group:
    """The coordinator's side: who owns which partition, committed positions, and the topic of marks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.owners: dict[Place, Reader] = {}
        self.committed: dict[Place, Committed] = {}
        self.marks_topic: list[tuple[Place, dict[str, Any]]] = []
        kind = OneMarksReader if world.rules.marks_in_one_piece else Reader
        self.readers = [kind(self) for _ in range(world.plan.readers)]
        self._known = 0

    def step(self) -> None:
        """Find new partitions; now and then rebalance, or rewind."""
        world, rng = self.world, self.world.rng
        if len(world.logs) != self._known:
            for place in world.logs:
                if place not in self.owners:
                    self.give(place, rng.choice(self._members()))
            self._known = len(world.logs)
        if world.chance(world.plan.p_rebalance):
            self.move(rng.choice(list(self.owners)), rng.choice(self._members()))
        for reader in self.readers:
            if world.chance(world.plan.p_reader_crashes):
                reader.crash()
                for place in [p for p, owner in self.owners.items() if owner is reader]:
                    self.give(place, rng.choice(self._members()))
            elif reader.asleep and rng.random() < 0.05:  # its session is over
                others = [other for other in self._members() if not other.asleep]
                if others:
                    for place in [p for p, owner in self.owners.items() if owner is reader]:
                        world.checker.lose(reader, place)
                        self.give(place, rng.choice(others))
        if world.chance(world.plan.p_rewind) and not any(reader.asleep or reader.fenced for reader in self.readers):
            self._rewind()

    def give(self, place: Place, reader: Reader) -> None:
        self.owners[place] = reader
        self.world.say(f"{place[1]} goes to {reader.name}")
        reader.assigned([place])

    def move(self, place: Place, reader: Reader) -> None:
        owner = self.owners[place]
        if owner is not reader and not owner.asleep:
            owner.revoked([place])
            self.give(place, reader)

    def commit(self, reader: Reader, commits: dict[Place, Committed]) -> bool:
        """Takes the positions of a member; False for one whose partitions went to others while it slept."""
        if any(self.owners.get(place) is not reader for place in commits):
            return False
        self.committed.update(commits)
        for place, commit in commits.items():
            self.world.checker.commit(reader, place, *commit.position)
        return True

    def _members(self) -> list[Reader]:
        return [reader for reader in self.readers if not reader.asleep] or self.readers

    def _rewind(self) -> None:
        """With the group stopped: everything goes back to the beginning, or to a time (rewind.py). The new positions carry no
        marks."""
        world = self.world
        places = world.control.newest.places
        moment = world.rng.choice((0, world.rng.randint(0, world.now)))
        wanted = {place: bisect_left(world.times[place], moment) for place in places}
        reached = {place: commit.position[0] for place, commit in self.committed.items()}
        if any(at > reached.get(place, 0) for place, at in wanted.items()):
            return  # some would be passed over unread: what was asked for, and nothing to check
        for reader in self.readers:
            reader.revoked([place for place, owner in self.owners.items() if owner is reader])
        positions = starting_positions(world.control.newest, wanted, {})
        self.committed = {place: Committed((offset, 0), None) for place, offset in positions.items()}
        world.say(f"rewind to {positions}")
        world.checker.rewind(range(KEYS))
        for each, owner in list(self.owners.items()):
            self.give(each, owner)


class Reader:
    """One member. As in reading.py: one message in hand, gated partitions not polled; marks by partition."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._world = group.world
        self.name = f"reader {group.world.number()}"
        self._asleep_until = 0
        self._forget()

    def _forget(self) -> None:
        self._map = self._world.control.newest
        self._marks: dict[Place, Marks] = {}
        self._positions: dict[Place, Position] = {}
        self._committed: dict[Place, Position] = {}
        self._gated: set[Place] = set()
        self._in_hand: InHand | None = None
        self._routine: Generator[None, None, None] | None = None

    @property
    def asleep(self) -> bool:
        return self._world.now < self._asleep_until and not self._world.quiet

    @property
    def fenced(self) -> bool:
        """It holds partitions that went to others while it slept."""
        return any(self._group.owners.get(place) is not self for place in self._positions.keys() | self._gated)

    def drained(self) -> bool:
        """Whether everything that may ever be read here is read and committed."""
        logs = self._world.logs
        owned = {place for place, owner in self._group.owners.items() if owner is self and logs[place]}
        mine = owned & self._world.control.newest.places
        return self._in_hand is None and all(self._committed.get(place, (0, 0))[0] >= len(logs[place]) for place in mine)

    def crash(self) -> None:
        self._world.say(f"{self.name} crashes")
        for place in self._positions:
            if self._group.owners.get(place) is self:
                self._world.checker.lose(self, place)
        self._forget()
        self._asleep_until = 0

    # -- the schedule --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        world = self._world
        if self.asleep:
            return
        if world.chance(world.plan.p_reader_sleeps):
            self._asleep_until = world.now + world.rng.choice((20, 100, 300))
            world.say(f"{self.name} sleeps until {self._asleep_until}")
            return
        if self._routine is not None:
            if next(self._routine, True):
                self._routine = None
            return
        what = world.rng.random()
        if what < 0.1:
            self._routine = self._commit_steps(self._moved(self._positions))
        elif what < 0.2:
            self._check_gate()
        elif self._in_hand is not None:
            self._handle()
        else:
            self._poll()

    # -- messages ------------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        world = self._world
        logs = world.logs
        ready = [p for p, at in self._positions.items() if at[0] < len(logs[p])]
        if not ready:
            return
        place = world.rng.choice(ready)
        offset, index = self._positions[place]
        message = logs[place][offset]
        if message.stamp is None:
            assert message.end is not None
            self._routine = self._pass_end(place, offset, message.end[1])
            return
        stamp = decode_stamp(message.stamp)
        if stamp.shard not in self._map.shards:
            self._map = world.control.newest
        shard = self._map.shards[stamp.shard]
        if world.rules.is_void(shard, offset):
            self._positions[place] = (offset + 1, 0)
            return
        records = [(i, stamp.first_seq + seq, hashed) for i, (seq, hashed) in enumerate(message.records)]
        verdict, ranges = self._marks_of(place).judge(stamp.producer, stamp.first_seq, stamp.last_seq, shard.low, shard.high)
        if verdict is Verdict.REPEAT:
            self._positions[place] = (offset + 1, 0)
            return
        if verdict is Verdict.PARTLY:
            records = [record for record in records if not is_repeat(ranges, record[2], record[1])]
        self._in_hand = InHand(place, offset, stamp, shard.low, shard.high, [r for r in records if r[0] >= index])
        self._handle()

    def _handle(self) -> None:
        """Handle some of the records in hand; the position may follow inside the message."""
        world, hand = self._world, self._in_hand
        if hand is None:
            return
        fenced = self._group.owners.get(hand.place) is not self
        upto = len(hand.records) if world.rng.random() < 0.7 else min(hand.done + 1, len(hand.records))
        for index, seq, hashed in hand.records[hand.done : upto]:
            at = (hand.place, hand.offset, index)
            world.say(f"{self.name} handles {hand.stamp.producer}/{seq} key {KEY_OF[hashed]} of {hand.stamp.shard} at {at}")
            world.checker.handle(self, at, hand.stamp.producer, KEY_OF[hashed], seq, fenced=fenced)
        hand.done = upto
        if hand.done >= len(hand.records):
            self._marks_of(hand.place).accept(hand.stamp.producer, hand.stamp.last_seq, hand.low, hand.high)
            self._positions[hand.place] = (hand.offset + 1, 0)
            self._in_hand = None
        elif world.rng.random() < 0.5:
            self._positions[hand.place] = (hand.offset, hand.records[hand.done - 1][0] + 1)

    def _pass_end(self, place: Place, offset: int, reshard: str) -> Generator[None, None, None]:
        world = self._world
        self._map = world.control.newest
        while reshard in self._map.pending:
            yield
            if world.quiet or world.rng.random() < 0.1:
                yield from finish_pending(world, f"{self.name} finishing {world.number()}")
            self._map = world.control.newest
        if place not in self._positions:
            return  # it went to another meanwhile
        self._positions[place] = (offset + 1, 0)
        if any(shard.seal == offset for shard in self._map.at_place(place)):
            yield from self._commit_steps({place: self._positions[place]})

    # -- gate and assignment -------------------------------------------------------------------------------------------

    def _check_gate(self) -> None:
        if not self._gated:
            return
        committed = self._group.committed
        self._map = self._world.control.newest
        offsets = {place: commit.position[0] for place, commit in committed.items()}
        for place in sorted(self._gated & self._world.rules.readable(self._map, offsets)):
            commit = committed.get(place)
            self._positions[place] = commit.position if commit else (0, 0)
            if commit:
                self._committed[place] = commit.position
            self._take_marks(place)
            self._gated.discard(place)

    def assigned(self, places: list[Place]) -> None:
        """Every new partition is gated until the next look at the gate. One that this reader lost in its sleep, and gets back
        before it noticed, is new too: Kafka tells it of the loss first, and refuses commits of the former assignment."""
        if any(place in self._positions for place in places):
            self._routine = None
            for place in places:
                self._drop(place)
        self._gated |= set(places)

    def revoked(self, places: list[Place]) -> None:
        """With the last chance to commit, which may fail."""
        self._routine = None
        if self._in_hand is not None and self._in_hand.place in places:
            self._in_hand = None
        if not self._world.chance(0.3):
            for _ in self._commit_steps(self._moved(places)):
                pass
        for place in places:
            self._world.checker.lose(self, place)
            self._drop(place)

    def _drop(self, place: Place) -> None:
        self._positions.pop(place, None)
        self._committed.pop(place, None)
        self._gated.discard(place)
        if self._in_hand is not None and self._in_hand.place == place:
            self._in_hand = None

    # -- marks ---------------------------------------------------------------------------------------------------------

    def _marks_of(self, place: Place) -> Marks:
        """Each partition's own: what another of this reader's partitions says of the same hash keys may be older."""
        marks = self._marks.get(place)
        if marks is None:
            marks = self._marks[place] = self._world.rules.marks()
        return marks

    def _take_marks(self, place: Place) -> None:
        self._marks[place] = self._marks_for(place, self._positions[place][0])

    def _marks_for(self, place: Place, offset: int) -> Marks:
        """A partition's own, all of them, also those of shards that are sealed: children ask for them. Or, where none were
        committed, the parents', side by side; an empty parent's are its own parents'."""
        marks = self._world.rules.marks()
        committed = self._group.committed

        def has_marks(at: Place) -> bool:
            return at in committed and committed[at].marks_at is not None

        for source, low, high in marks_sources(self._map, place, offset, has_marks):
            marks.replace(low, high, self._read_marks(source))
        return marks

    def _marks_to_keep(self, place: Place) -> dict[str, Any]:
        return self._marks_of(place).to_json()

    def _read_marks(self, place: Place) -> Marks:
        """Exactly those that the commit points to: a newer entry may be an older reader's, that slept and was fenced."""
        commit = self._group.committed.get(place)
        if commit is None or commit.marks_at is None:
            return Marks()
        entries = self._group.marks_topic
        at = commit.marks_at
        if self._world.rules.newest_marks:
            at = max(number for number, (owner, _) in enumerate(entries) if owner == place)
        return Marks.from_json(entries[at][1])

    # -- commits -------------------------------------------------------------------------------------------------------

    def _moved(self, places: Iterable[Place]) -> dict[Place, Position]:
        at = {place: self._positions[place] for place in places if place in self._positions}
        return {place: position for place, position in at.items() if self._committed.get(place) != position}

    def _commit_steps(self, positions: dict[Place, Position]) -> Generator[None, None, None]:
        """2 the marks, 3 the positions: a crash may come between."""
        if not positions:
            return
        commits: dict[Place, Committed] = {}
        for place, position in positions.items():
            self._group.marks_topic.append((place, self._marks_to_keep(place)))
            commits[place] = Committed(position, len(self._group.marks_topic) - 1)
        yield
        if self._group.commit(self, commits):
            self._committed.update(positions)
        else:
            for place in [p for p in self._positions.keys() | self._gated if self._group.owners.get(p) is not self]:
                self._drop(place)


class OneMarksReader(Reader):
    """Keeps the marks of all its partitions in one piece, and takes from a commit only those of the shard that it stands
    in: a sealed parent's are gone once its partition changes hands, and then its children ask for them."""

    def _marks_of(self, place: Place) -> Marks:
        return self._marks.setdefault(("", 0), self._world.rules.marks())

    def _take_marks(self, place: Place) -> None:
        shard = shard_at(self._map, place, self._positions[place][0])
        if shard is None:
            return
        sources = [(place, shard.low, shard.high)]
        if place not in self._group.committed and shard.parents:
            parents = [self._map.shards[parent] for parent in shard.parents]
            sources = [(p.place, max(p.low, shard.low), min(p.high, shard.high)) for p in parents]
        for source, low, high in sources:
            self._marks_of(place).replace(low, high, self._read_marks(source))

    def _marks_to_keep(self, place: Place) -> dict[str, Any]:
        shards = self._map.at_place(place)
        return self._marks_of(place).to_json(min(s.low for s in shards), max(s.high for s in shards))
