"""A member of a consumer group on Kafka's own protocol: assignment, polling, pausing, committing. No meaning in here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.config import Connection
from pipeline.errors import BrokerUnavailableError, HeadraceError, TrimmedError
from pipeline.kafka.bounds import partition_bounds
from pipeline.kafka.settings import group_settings, log, reader_settings
from pipeline.kafka.translate import translate
from pipeline.model.shards import Place

COORDINATOR_WAIT_S, COMMIT_WAIT_S, JOIN_S, CLOSE_WAIT_S = 2.0, 5.0, 2.0, 60.0


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
        self._consumer = Consumer(group_settings(connection, group, protocol))
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._asker: Consumer | None = None
        self._asker_settings = reader_settings(connection)
        self._raised: BaseException | None = None
        self._in_callback = False
        self._join_until = 0.0
        self._commit_under_way = threading.Thread()
        self._commit_under_way.start()  # an empty one: there is always one to ask

    def subscribe(self, topics: Iterable[str]) -> None:
        self._consumer.subscribe(
            sorted(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=lambda c, p: self._revoked(c, p, lost=True)
        )

    def poll(self, timeout_s: float) -> Fetched | None:
        """The next message of any partition that is not paused; None if none came in time. Also serves the group: call it
        more often than max.poll.interval.ms. Raises what a callback raised, OutOfRangeError, or a StopError."""
        message = self._consumer.poll(timeout_s)
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
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
        self._consumer.pause([TopicPartition(*place) for place in places])

    def resume(self, places: Iterable[Place]) -> None:
        self._consumer.resume([TopicPartition(*place) for place in places])

    def seek(self, place: Place, offset: int) -> None:
        """Go on at ``offset`` of a partition that is being read."""
        self._consumer.seek(TopicPartition(*place, offset))

    def start(self, place: Place, offset: int) -> bool:
        """Read a paused partition from ``offset`` on. False where the client has not taken it up yet: try again soon."""
        try:
            self._consumer.seek(TopicPartition(*place, offset))
        except KafkaException as error:
            if error.args[0].code() == KafkaError._STATE:
                return False
            raise translate(error, f"go to {offset} in {place[0]}[{place[1]}]", self._bootstrap) from error
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

    def commit(self, positions: dict[Place, Committed]) -> None:
        """Commit and wait for the answer, ``COMMIT_WAIT_S`` at most. Raises BrokerUnavailableError where it did not succeed:
        nothing is lost, records since the last commit come again.

        librdkafka tries a commit of a member that was given up again and again until the member has joined anew, for which
        ``poll`` has to be called; and one that finds no coordinator it keeps for 45 s, and joins nothing meanwhile. So the
        answer is waited for on a thread, the coordinator is asked for first, and after a failure there is time to join.
        """
        offsets = [TopicPartition(*place, position.offset, position.note) for place, position in positions.items()]
        if self._commit_under_way.is_alive():
            raise BrokerUnavailableError(f"could not commit at {self._bootstrap}: an earlier commit is not answered yet")
        if not self._in_callback:  # there, nothing but the commit itself is answered
            self._wait_to_join()
            try:
                self._consumer.committed(offsets[:1], timeout=COORDINATOR_WAIT_S)
            except KafkaException as error:
                self._join_until = time.monotonic() + JOIN_S
                raise translate(error, "commit", self._bootstrap) from error
        answer: list[list[TopicPartition] | KafkaException] = []
        self._commit_under_way = threading.Thread(target=self._commit, args=(offsets, answer), daemon=True)
        self._commit_under_way.start()
        self._commit_under_way.join(COMMIT_WAIT_S)
        if not answer:
            raise BrokerUnavailableError(f"could not commit at {self._bootstrap}: no answer within {COMMIT_WAIT_S:g} s")
        answered = answer[0]
        if isinstance(answered, KafkaException):
            raise translate(answered, "commit", self._bootstrap) from answered
        for tp in answered:
            if tp.error is not None:
                raise translate(tp.error, f"commit {tp.topic}[{tp.partition}]", self._bootstrap)

    def _commit(self, offsets: list[TopicPartition], answer: list[list[TopicPartition] | KafkaException]) -> None:
        try:
            answer.append(self._consumer.commit(offsets=offsets, asynchronous=False) or [])
        except KafkaException as error:
            self._join_until = time.monotonic() + JOIN_S
            answer.append(error)

    def _wait_to_join(self) -> None:
        if time.monotonic() < self._join_until:
            raise BrokerUnavailableError(f"could not commit at {self._bootstrap}: the group is joined again first")

    def bounds(self, place: Place, timeout_s: float = 2.0) -> tuple[int, int]:
        """(first offset kept, end offset) of a partition, asked now. Over a connection of its own: on the group's the question
        would wait behind the fetch that is under way."""
        if self._asker is None:
            self._asker = Consumer(self._asker_settings)
        return partition_bounds(self._asker, place, self._bootstrap, timeout_s)

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
        """Leave the group; partitions are revoked, which commits them."""
        if self._asker is not None:
            self._asker.close()
        deadline = time.monotonic() + CLOSE_WAIT_S
        while self._commit_under_way.is_alive() and time.monotonic() < deadline:
            self._consumer.poll(0.1)  # it may wait for the group to be joined anew
        if self._commit_under_way.is_alive():
            log.warning("a commit is not answered: this member is left to its session's end")
            return  # closing the client below the call is not safe
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
        try:
            self._on_revoked([(tp.topic, tp.partition) for tp in partitions], lost)
        except HeadraceError as error:
            self._raised = error
        finally:
            self._in_callback = False
            if partitions and not lost:
                self._consumer.incremental_unassign(partitions)

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
