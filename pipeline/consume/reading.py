"""Reading a stream as a member of a group: fetch → gate → unpack → drop repeats → checkpoint.

One message is in hand at a time; librdkafka fetches ahead. Not thread-safe: its consumer calls it from one thread.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipeline import metrics
from pipeline.config import Connection, StreamConfig
from pipeline.consume.assignment import gate, marks_sources, starting_positions
from pipeline.consume.checkpoint import MarksTopic, Position, commit_of, note_of
from pipeline.consume.unpack import Kind, Unpacked, Unpacker
from pipeline.errors import RetryableError, TrimmedError
from pipeline.kafka.group_reader import Committed, Fetched, GroupReader
from pipeline.model.repeats import Marks
from pipeline.model.shards import Place, ShardMap
from pipeline.model.stamp import END_HEADER
from pipeline.reshard.control_log import ControlLog

log = logging.getLogger("headrace.consume")
EARLIEST, LATEST = "earliest", "latest"
GATE_CHECK_S = 0.2
START_AGAIN_S = 0.02
RETRY_S = 0.5
PRODUCER_RETENTION_MS = 7 * 24 * 3600 * 1000


@dataclass(slots=True)
class ReaderStats:
    """Counters since the reader started."""

    messages: int = 0
    records: int = 0
    repeats_dropped: int = 0
    voids: int = 0
    bad: int = 0
    commits: int = 0
    rebalances: int = 0


class _Counters:
    """The label children of one reader, held."""

    def __init__(self, stream: str, group: str) -> None:
        self.handled = metrics.RECORDS_HANDLED.labels(stream, group)
        self.repeats = metrics.REPEATS_DROPPED.labels(stream, group)
        self.voids = metrics.VOIDS_SKIPPED.labels(stream, group)
        self.bad = metrics.BAD_MESSAGES.labels(stream, group)
        self.commits = metrics.COMMITS.labels(stream, group)
        self.commit_failures = metrics.COMMIT_FAILURES.labels(stream, group)
        self.rebalances = metrics.REBALANCES.labels(stream, group)


class Reading:
    """See the module. ``next`` gives a message's records; ``done`` says that some of them, or all, are handled."""

    def __init__(
        self,
        connection: Connection,
        stream: StreamConfig,
        group: str,
        control: ControlLog,
        unpacker: Unpacker,
        finish: Callable[[ControlLog], None],
        *,
        start: str | int,
        protocol: str,
    ) -> None:
        self._stream = stream
        self._start = start
        self._start_resolved = False
        self._control = control
        self._unpacker = unpacker
        self._finish = finish
        self._marks: dict[Place, Marks] = {}
        self._turns: dict[Place, str] = {}
        self._ended_turns: dict[Place, str] = {}
        self._newest_ms = 0
        self._marks_topic = MarksTopic(connection, stream.name, group)
        self._positions: dict[Place, Position] = {}
        self._committed: dict[Place, Position] = {}
        self._gated: set[Place] = set()
        self._gate_checked_at = 0.0
        self._in_hand: Unpacked | None = None
        self.stats = ReaderStats()
        self._counters = _Counters(stream.name, group)
        self._labels = (stream.name, group)
        self._reader = GroupReader(connection, group, protocol, self._assigned, self._revoked)
        self._topics = {place[0] for place in control.map.places}
        self._reader.subscribe(self._topics)
        metrics.LIVE.watch(self.read_gauges)

    def read_gauges(self) -> list[metrics.Sample]:
        """For a scrape, on its thread: from what the client knows without asking."""
        lag = sum(self._reader.known_lag(place, position.offset) for place, position in list(self._positions.items()))
        behind_s = time.time() - self._newest_ms / 1000 if lag and self._newest_ms else 0.0
        return [
            (metrics.LAG_MESSAGES, self._labels, lag),
            (metrics.BEHIND_SECONDS, self._labels, max(0.0, behind_s)),
            (metrics.GATED_SHARDS, self._labels, len(self._gated)),
        ]

    # -- messages ------------------------------------------------------------------------------------------------------

    def next(self, timeout_s: float) -> Unpacked | None:
        """The next message that has records to handle, or is BAD; None if none came in time. What was given before has to
        be ``done`` first."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._check_gate()
            fetched = self._reader.poll(max(0.0, min(GATE_CHECK_S, deadline - time.monotonic())))
            if fetched is not None and fetched.place in self._positions:
                unpacked = self._unpack(fetched)
                if unpacked is not None:
                    self._in_hand = unpacked
                    return unpacked
            if time.monotonic() >= deadline:
                return None

    def done(self, records: int) -> None:
        """The first ``records`` of the message in hand are handled."""
        unpacked = self._in_hand
        if unpacked is None:
            return  # it was taken away by a rebalance: whoever has it now reads it again
        if records >= len(unpacked.records):
            self._pass(unpacked)
            self._in_hand = None
        elif records:
            self._positions[unpacked.fetched.place] = Position(unpacked.fetched.offset, unpacked.records[records - 1].index + 1)

    def put_back(self) -> None:
        """Give the records of the message in hand that are not done again, at once."""
        if self._in_hand is not None:
            place = self._in_hand.fetched.place
            self._in_hand = None
            self._reader.seek(place, self._positions[place].offset)

    def commit(self) -> None:
        """Commit every position that moved. Raises BrokerUnavailableError: nothing is lost, some records come again."""
        try:
            self._commit(self._moved(self._positions))
        except RetryableError:
            self._counters.commit_failures.inc()
            raise

    def close(self) -> None:
        """Commit and leave the group."""
        try:
            self._reader.close()
        finally:
            self._marks_topic.close()
            self._control.close()

    # -- one message -----------------------------------------------------------------------------------------------------

    def _unpack(self, fetched: Fetched) -> Unpacked | None:
        """What to handle of a message; None if there is nothing."""
        while True:
            try:
                unpacked = self._unpacker.unpack(fetched, self._marks[fetched.place])
                if unpacked.kind is Kind.END:
                    self._pass_end(fetched)
                    return None
                break
            except RetryableError as error:
                log.warning("%s[%d] waits at %d: %s", *fetched.place, fetched.offset, error)
                time.sleep(RETRY_S)
                self._reader.pause(self._positions)  # poll to stay in the group, without taking messages
                self._reader.poll(0)
                if fetched.place not in self._positions:
                    return None
                self._reader.resume(self._positions)
        self.stats.messages += 1
        self.stats.repeats_dropped += unpacked.repeats
        self.stats.voids += unpacked.kind is Kind.VOID
        self.stats.bad += unpacked.kind is Kind.BAD
        self._counters.repeats.inc(unpacked.repeats)
        self._counters.voids.inc(unpacked.kind is Kind.VOID)
        self._counters.bad.inc(unpacked.kind is Kind.BAD)
        at = self._positions[fetched.place]
        if at.offset == fetched.offset and at.index:
            unpacked.records = [record for record in unpacked.records if record.index >= at.index]
        if unpacked.records or unpacked.kind is Kind.BAD:
            return unpacked
        self._pass(unpacked)
        return None

    def _pass(self, unpacked: Unpacked) -> None:
        """A message is handled whole: marks and position move on together."""
        fetched, stamp, shard = unpacked.fetched, unpacked.stamp, unpacked.shard
        if unpacked.kind is Kind.RECORDS and stamp is not None and shard is not None:
            marks = self._marks[fetched.place]
            marks.accept(stamp.producer, stamp.last_seq, shard.low, shard.high, stamp.created_at_ms)
            self._newest_ms = max(self._newest_ms, stamp.created_at_ms)
        self.stats.records += len(unpacked.records)
        self._counters.handled.inc(len(unpacked.records))
        self._positions[fetched.place] = Position(fetched.offset + 1)

    def _pass_end(self, fetched: Fetched) -> None:
        """Only COMMIT makes a seal: an END is asked of the control log, and waited for or brought about."""
        header = next((value for name, value in fetched.headers if name == END_HEADER), None)
        try:
            reshard = str(json.loads(header or b"")["reshard"])
        except (ValueError, KeyError, TypeError):
            reshard = ""
        shard_map = self._control.barrier()
        if reshard in shard_map.pending:
            time.sleep(GATE_CHECK_S)  # its resharder is most likely at work
            if reshard in self._control.barrier().pending:
                self._finish(self._control)
            shard_map = self._control.barrier()
            if reshard in shard_map.pending:
                raise RetryableError(f"reshard {reshard} is still pending")
        self._positions[fetched.place] = Position(fetched.offset + 1)
        if any(shard.seal == fetched.offset for shard in shard_map.at_place(fetched.place)):
            self._commit({fetched.place: self._positions[fetched.place]})
            self._gate_checked_at = 0.0

    # -- gate ------------------------------------------------------------------------------------------------------------

    def _check_gate(self) -> None:
        """Start what may be read by now. Gated partitions are paused, and polled on: the group sees a live member."""
        now = time.monotonic()
        if not self._gated or now < self._gate_checked_at + GATE_CHECK_S:
            return
        self._gate_checked_at = now
        try:
            shard_map = self._control.barrier()
            self._resolve_start(shard_map)
            open_places, committed = self._open_places(shard_map)
        except RetryableError as error:
            log.warning("the gate waits: %s", error)
            return
        opened = self._gated & open_places
        for place, position in self._start_positions(shard_map, opened, committed).items():
            if self._reader.start(place, position.offset):
                self._gated.discard(place)
                self._positions[place] = position
                if place in committed:
                    self._committed[place] = position
            else:
                self._gate_checked_at = now - GATE_CHECK_S + START_AGAIN_S

    def _resolve_start(self, shard_map: ShardMap) -> None:
        """A group that is new to the stream and starts at "latest" or at a time: where that is, is settled once, for all
        shards, and committed; whoever is assigned a shard later, or a child made later, goes by it."""
        if self._start_resolved or self._start == EARLIEST:
            return
        if not self._reader.committed(shard_map.places):
            bounds = {place: self._reader.bounds(place) for place in shard_map.places}
            if isinstance(self._start, int):
                wanted = self._reader.offsets_at(shard_map.places, self._start)
            else:
                wanted = {place: end for place, (_, end) in bounds.items()}
            positions = starting_positions(shard_map, wanted, {place: low for place, (low, _) in bounds.items()})
            self._reader.commit({place: Committed(offset, "") for place, offset in positions.items()})
        self._start_resolved = True

    def _open_places(self, shard_map: ShardMap) -> tuple[set[Place], dict[Place, Committed]]:
        committed = self._reader.committed(shard_map.places)
        offsets = {place: position.offset for place, position in committed.items()}
        parents = {shard_map.shards[p].place for shard in shard_map.shards.values() for p in shard.parents}
        unread = {place for place in parents if offsets.get(place, 0) == 0}
        starts = {place: self._reader.bounds(place)[0] for place in unread}
        return gate(shard_map, offsets, starts), committed

    # -- assignment --------------------------------------------------------------------------------------------------------

    def _assigned(self, places: list[Place]) -> None:
        """Called inside poll. Every new partition is gated until the next look at the gate."""
        if places:
            self.stats.rebalances += 1
            self._counters.rebalances.inc()
            self._gated |= set(places)
            self._gate_checked_at = 0.0

    def _start_positions(
        self, shard_map: ShardMap, places: set[Place], committed: dict[Place, Committed]
    ) -> dict[Place, Position]:
        offsets = {place: position.offset for place, position in committed.items()}
        positions: dict[Place, Position] = {}
        for place in places:
            low, _ = self._reader.bounds(place)
            offset = offsets.get(place, low)
            if offset < low:
                raise _trimmed(place, offset, low)
            note = note_of(committed[place]) if place in committed else None
            positions[place] = Position(offset, note.index if note else 0)
        self._take_marks(shard_map, positions, committed)
        return positions

    def _take_marks(self, shard_map: ShardMap, positions: dict[Place, Position], committed: dict[Place, Committed]) -> None:
        """Marks come with the commit: a place's own, or its parents' (``marks_sources``)."""
        notes = {place: note for place, at in committed.items() if (note := note_of(at)) is not None}
        sources = {p: marks_sources(shard_map, p, at.offset, notes.__contains__) for p, at in positions.items()}
        asked = {source for parts in sources.values() for source, _, _ in parts}
        found = self._marks_topic.read({place: notes[place] for place in asked})
        for place, parts in sources.items():
            marks = self._marks[place] = Marks()
            for source, low, high in parts:
                marks.replace(low, high, found[source])
            self._turns[place] = uuid.uuid4().hex
            if place in notes:
                self._ended_turns[place] = notes[place].turn

    def _revoked(self, places: list[Place], lost: bool) -> None:
        """Called inside poll: the last chance to commit, unless the partitions are lost already."""
        leaving = set(places)
        if self._in_hand is not None and self._in_hand.fetched.place in leaving:
            self._in_hand = None
        try:
            if not lost:
                self._commit(self._moved(leaving))
        except RetryableError as error:
            log.warning("no commit before %d partitions went to others: their last records come again (%s)", len(leaving), error)
        finally:
            for place in leaving:
                for held in (self._positions, self._committed, self._marks, self._turns, self._ended_turns):
                    held.pop(place, None)
                self._gated.discard(place)

    # -- commits -----------------------------------------------------------------------------------------------------------

    def _moved(self, places: Iterable[Place]) -> dict[Place, Position]:
        """Positions to commit. Never a gated one's: a child without a commit starts at its beginning."""
        at = {place: self._positions[place] for place in places if place in self._positions}
        return {place: position for place, position in at.items() if self._committed.get(place) != position}

    def _commit(self, positions: dict[Place, Position]) -> None:
        if not positions:
            return
        commits: dict[Place, Committed] = {}
        for place, position in positions.items():
            self._marks[place].prune(self._newest_ms - PRODUCER_RETENTION_MS)
            turn = self._turns[place]
            pointer = self._marks_topic.write(place, turn, position, self._marks[place].to_json())
            commits[place] = commit_of(position, pointer, turn)
        self._reader.commit(commits)
        self._committed.update(positions)
        for place in positions.keys() & self._ended_turns.keys():
            self._marks_topic.forget(place, self._ended_turns.pop(place))
        self.stats.commits += 1
        self._counters.commits.inc()


def _trimmed(place: Place, offset: int, low: int) -> TrimmedError:
    return TrimmedError(
        f"{place[0]}[{place[1]}] starts at {low}, and this group had read up to {offset}: retention removed {low - offset} "
        f"messages unread. Reset the group's offset to {low} to go on without them"
    )
