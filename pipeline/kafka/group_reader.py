"""A member of a consumer group on Kafka's own protocol: assignment, polling, pausing, committing. No meaning in here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.config import Connection
from pipeline.errors import BrokerUnavailableError, HeadraceError, TrimmedError
from pipeline.kafka.log_reader import LogReader
from pipeline.kafka.settings import group_settings
from pipeline.kafka.translate import translate
from pipeline.model.shards import Place

COMMIT_WAIT_S = 5.0
ANSWER_POLL_S = 0.002  # poll does not return for an answer
HELD_MAX = 64
"""Messages that come while a commit is waited for, before the partitions are paused."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A group's committed position of one partition: the next offset to read, and what the committer wrote beside it."""

    offset: int
    note: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """A message as it lies in the log."""

    place: Place
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int

    def header(self, name: str) -> bytes | None:
        """The first header of this name; b"" where it has no value, None where there is none."""
        return next((value or b"" for key, value in self.headers if key == name), None)


Then = Callable[[HeadraceError | None], None]
"""Called once a commit is answered: with None where it is good; with why not, where nobody waits for the answer."""


@dataclass(eq=False, slots=True)
class _Asked:
    """A commit without an answer yet."""

    positions: set[tuple[str, int, int]]
    then: Then
    is_waited_for: bool
    error: HeadraceError | None = None


class OutOfRangeError(TrimmedError):
    """The log no longer has the offset to read next, in ``place``."""

    def __init__(self, text: str, place: Place) -> None:
        super().__init__(text, place)
        self.text, self.place = text, place

    def __str__(self) -> str:
        return self.text


class GroupReader:
    """Not thread-safe. New partitions are paused from the start, wherever they stand: ``on_assigned(places)`` only takes
    note of them, and the owner calls ``start`` later. ``on_revoked(places, lost)`` is the last chance to commit (not after
    ``lost``). Both are called from ``poll``, where few calls of the client may be made: one that serves callbacks of its own
    (list_topics) aborts the process in confluent-kafka 2.16.
    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        protocol: str,
        on_assigned: Callable[[list[Place]], None],
        on_revoked: Callable[[list[Place], bool], None],
    ) -> None:
        self._bootstrap = connection.bootstrap
        self._consumer = Consumer(group_settings(connection, group, protocol) | {"on_commit": self._answered})
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._connection = connection
        self._asker: LogReader | None = None
        self._raised: BaseException | None = None
        self._in_callback = False
        self._asked: list[_Asked] = []
        self._held: list[Fetched] = []
        self._paused: set[Place] = set()

    def subscribe(self, topics: Iterable[str]) -> None:
        self._consumer.subscribe(
            sorted(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=lambda c, p: self._revoked(c, p, lost=True)
        )

    def poll(self, timeout_s: float) -> Fetched | None:
        """The next message of any partition that is not paused; None if none came in time. Also serves the group: call it
        more often than max.poll.interval.ms. Raises what a callback raised, OutOfRangeError, or a StopError."""
        for at, held in enumerate(self._held):
            if held.place not in self._paused:
                return self._held.pop(at)
        fetched = self._receive(timeout_s)
        if self._raised is not None:
            raised, self._raised = self._raised, None
            if fetched is not None:
                self._held.append(fetched)
            raise raised
        return fetched

    def _receive(self, timeout_s: float) -> Fetched | None:
        message = self._consumer.poll(timeout_s)
        if message is None:
            return None
        error = message.error()
        if error is not None:
            self._react(error, message)
            return None
        headers = [(name, value.encode() if isinstance(value, str) else value) for name, value in message.headers() or ()]
        place = message.topic(), message.partition()
        return Fetched(place, message.offset(), message.key(), message.value(), headers, message.timestamp()[1])

    def pause(self, places: Iterable[Place]) -> None:
        places = set(places)
        self._paused |= places
        self._consumer.pause([TopicPartition(*place) for place in places])

    def resume(self, places: Iterable[Place]) -> None:
        places = set(places)
        self._paused -= places
        self._consumer.resume([TopicPartition(*place) for place in places])

    def seek(self, place: Place, offset: int) -> None:
        """Go on at ``offset`` of a partition that is being read."""
        self._drop({place})
        self._consumer.seek(TopicPartition(*place, offset))

    def start(self, place: Place, offset: int) -> bool:
        """Read a paused partition from ``offset`` on. False where the client has not taken it up yet: try again soon."""
        try:
            self._consumer.seek(TopicPartition(*place, offset))
        except KafkaException as error:
            if error.args[0].code() == KafkaError._STATE:
                return False
            raise translate(error, f"go to {offset} in {place[0]}[{place[1]}]", self._bootstrap) from error
        self._drop({place})
        self.resume([place])
        return True

    def committed(self, places: Iterable[Place], timeout_s: float = 10.0) -> dict[Place, Committed]:
        """The group's committed positions of these partitions, whoever reads them; absent where there is none."""
        asked = [TopicPartition(*place) for place in places]
        if not asked:
            return {}
        try:
            found = self._consumer.committed(asked, timeout=timeout_s)
        except KafkaException as error:
            raise translate(error, "read committed positions", self._bootstrap) from error
        return {(tp.topic, tp.partition): Committed(tp.offset, tp.metadata or "") for tp in found if tp.offset >= 0}

    def commit(self, positions: dict[Place, Committed], then: Then = lambda _: None) -> None:
        """Commit and wait for the answer, ``COMMIT_WAIT_S`` at most; ``then`` is called once it is there and good, be it after
        that. Raises BrokerUnavailableError where it is bad or late: nothing is lost, records since the last commit come again.

        In a callback nothing is waited for: the commit goes out before the group hears that the partitions are given up, and
        its answer comes with a later poll; where it is bad, ``then`` is called with why. A synchronous commit must never be
        used: librdkafka keeps one that finds no coordinator for 45 s, and one of a member that was given up until the
        member has joined anew; either is served by ``poll``, which waits for the commit.
        """
        if self._asked and not self._in_callback:
            raise BrokerUnavailableError(f"could not commit at {self._bootstrap}: an earlier commit is not answered yet")
        asked = {(*place, position.offset) for place, position in positions.items()}
        commit = _Asked(asked, then, is_waited_for=not self._in_callback)
        self._asked.append(commit)
        try:
            self._consumer.commit(
                offsets=[TopicPartition(*place, position.offset, position.note) for place, position in positions.items()],
                asynchronous=True,
            )
        except KafkaException as error:
            self._asked.remove(commit)
            raise translate(error, "commit", self._bootstrap) from error
        if self._in_callback:
            return
        self._await(commit)
        if commit.error is not None:
            raise commit.error
        if commit in self._asked:
            raise BrokerUnavailableError(f"could not commit at {self._bootstrap}: no answer within {COMMIT_WAIT_S:g} s")

    def _await(self, commit: _Asked) -> None:
        """Poll until a commit is answered or late. Messages that come meanwhile are kept for the polls after it."""
        deadline = time.monotonic() + COMMIT_WAIT_S
        stopped: list[TopicPartition] = []
        while commit in self._asked and time.monotonic() < deadline:
            try:
                fetched = self._receive(ANSWER_POLL_S)
            except HeadraceError as error:
                self._raised = self._raised or error
                continue
            if fetched is not None:
                self._held.append(fetched)
                if len(self._held) == HELD_MAX:
                    stopped = [tp for tp in self._consumer.assignment() if (tp.topic, tp.partition) not in self._paused]
                    self._consumer.pause(stopped)
        if stopped:
            there = {(tp.topic, tp.partition) for tp in self._consumer.assignment()} - self._paused
            self._consumer.resume([tp for tp in stopped if (tp.topic, tp.partition) in there])

    def _answered(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Called from ``poll``. Commits are told apart by what they said, since one may be kept while a later one is answered."""
        positions = {(tp.topic, tp.partition, tp.offset) for tp in partitions}
        commit = next((asked for asked in self._asked if asked.positions == positions), None)
        if commit is None:
            return
        self._asked.remove(commit)
        bad = error or next((tp.error for tp in partitions if tp.error is not None), None)
        if bad is not None:
            commit.error = translate(bad, "commit", self._bootstrap)
            if commit.is_waited_for:
                return
        try:
            commit.then(commit.error)
        except HeadraceError as problem:
            self._raised = self._raised or problem

    def bounds(self, place: Place, timeout_s: float = 2.0) -> tuple[int, int]:
        """(first offset kept, end offset) of a partition, asked now. Over a connection of its own: on the group's the question
        would wait behind the fetch that is under way."""
        if self._asker is None:
            self._asker = LogReader(self._connection, *place)
        self._asker.turn_to(*place)
        return self._asker.bounds(timeout_s)

    def known_lag(self, place: Place, offset: int) -> int:
        """Messages from ``offset`` to the end as the newest fetch told it; 0 before the first. From any thread."""
        known = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
        return max(0, known[1] - offset) if known else 0

    def offsets_at(self, places: Iterable[Place], timestamp_ms: int, timeout_s: float = 10.0) -> dict[Place, int]:
        """For each partition the first offset whose timestamp is at or after ``timestamp_ms``; its end if there is none."""
        asked = [TopicPartition(*place, timestamp_ms) for place in places]
        try:
            found = self._consumer.offsets_for_times(asked, timeout=timeout_s)
        except KafkaException as error:
            raise translate(error, "find offsets by time", self._bootstrap) from error
        return {(t.topic, t.partition): t.offset if t.offset >= 0 else self.bounds((t.topic, t.partition))[1] for t in found}

    def close(self) -> None:
        """Leave the group; commit before: what partitions are revoked for is not answered any more."""
        if self._asker is not None:
            self._asker.close()
        self._consumer.close()

    def _assigned(self, _: Any, partitions: list[TopicPartition]) -> None:
        try:
            places = [(tp.topic, tp.partition) for tp in partitions]
            self._consumer.incremental_assign([TopicPartition(*place, OFFSET_BEGINNING) for place in places])
            self.pause(places)
            self._on_assigned(places)
        except BaseException as error:  # noqa: BLE001 - the client swallows what callbacks raise; poll raises it
            self._raised = error

    def _revoked(self, _: Any, partitions: list[TopicPartition], lost: bool = False) -> None:
        self._in_callback = True
        places = {(tp.topic, tp.partition) for tp in partitions}
        self._drop(places)
        self._paused -= places
        try:
            self._on_revoked(list(places), lost)
        except HeadraceError as error:
            self._raised = error
        finally:
            self._in_callback = False
            if partitions and not lost:
                self._consumer.incremental_unassign(partitions)

    def _drop(self, places: set[Place]) -> None:
        self._held = [held for held in self._held if held.place not in places]

    def _react(self, error: KafkaError, message: Any) -> None:
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            place = message.topic(), message.partition()
            raise OutOfRangeError(
                f"{place[0]}[{place[1]}] no longer has the offset to read next ({error.str()}): retention removed records that "
                "this group had not read. To go on without them, and count them: Consumer(…, on_trimmed='continue')",
                place,
            )
        if error.fatal() or not error.retriable():
            translated = translate(error, "read", self._bootstrap)
            if not isinstance(translated, BrokerUnavailableError) or error.fatal():
                raise translated
