"""The control log of a stream: creating it, replaying it, and barriers (DESIGN.md §3).

A *barrier* is a read of the control log that is certain to show every event acknowledged before it began. With one replica
the end offset is such a read. With several it is not: a deposed leader was seen to answer with an old end offset after
PREPARE had been acknowledged by the new one. There a PING is appended with acks=all and the log is replayed up to it.
"""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from types import TracebackType
from typing import Any

from pipeline.config import Connection, StreamConfig
from pipeline.errors import ControlLogError, InvariantError, StreamConflictError, UnknownStreamError
from pipeline.kafka.control_topic import ControlTopic
from pipeline.kafka.log_reader import LogReader
from pipeline.kafka.topics import Topic, Topics
from pipeline.model.keys import HASH_NAME, even_ranges
from pipeline.model.shards import CLAIM, CREATED, PING, Shard, ShardMap, shard_event

TIMEOUT_S = 15.0


class ControlLog:
    """One process's view of a stream's control log. Thread-safe; bounded: it holds the shard map, not the events."""

    def __init__(self, connection: Connection, stream: StreamConfig, topics: Topics | None = None) -> None:
        """Raises UnknownStreamError where the stream was not created, and StopErrors where what is there is not whole."""
        self.stream = stream
        self._lock = threading.RLock()
        self._topics = topics or Topics(connection)
        control = self._described(stream.control_topic)
        self.replication = control.replication
        self._topic_id = control.id
        self._topic = ControlTopic(connection, stream.control_topic)
        self._map = ShardMap()
        self._name = uuid.uuid4().hex
        try:
            self.refresh()
            if not self._map.created:
                raise UnknownStreamError(
                    f"stream {stream.name!r} was not created whole: run `headrace stream create {stream.name}`"
                )
            self.check_topic_ids()
        except BaseException:
            self.close()
            raise

    @property
    def map(self) -> ShardMap:
        """The map as last read."""
        return self._map

    def refresh(self, timeout_s: float = TIMEOUT_S) -> ShardMap:
        """Read on to the end offset of the moment. Good for following; not a barrier where there are replicas."""
        with self._lock:
            low, end = self._topic.bounds(timeout_s)
            if end < self._map.position:
                raise ControlLogError(
                    f"{self._topic.topic} ends at {end} but was read up to {self._map.position}: it was truncated or "
                    "recreated. Stop everything that uses the stream and restore the topic from its replicas or a backup"
                )
            if low > self._map.position:
                raise ControlLogError(
                    f"{self._topic.topic} starts at {low} but was read up to {self._map.position} only: its beginning was "
                    "deleted, so its shards are not known. Restore it; its cleanup.policy has to be `compact`"
                )
            return self._read_to(end, timeout_s)

    def barrier(self, timeout_s: float = TIMEOUT_S) -> ShardMap:
        """The map with every event in it that was acknowledged before this call began."""
        if self.replication == 1:
            return self.refresh(timeout_s)
        with self._lock:
            offset = self._topic.append({"type": PING, "from": self._name}, timeout_s, key=f"ping-{self._name}")
            if offset < self._map.position:
                raise ControlLogError(
                    f"{self._topic.topic} gave offset {offset} to a new event, but was read up to {self._map.position}: "
                    "it was truncated or recreated. Stop everything that uses the stream and restore the topic"
                )
            return self._read_to(offset + 1, timeout_s)

    def append(self, event: dict[str, Any], timeout_s: float = TIMEOUT_S) -> ShardMap:
        """Write an event and read back past it. Whether it was valid at its place, the map tells."""
        with self._lock:
            offset = self._topic.append(event, timeout_s)
            return self._read_to(offset + 1, timeout_s)

    def claim(self, producer: str) -> int:
        """Start a named producer: the new incarnation, which fences all older ones. Two that start at once both get one;
        the later of the two in the log stays."""
        with self._lock:
            self.barrier()
            while True:
                token = uuid.uuid4().hex
                current = self._map.claims.get(producer)
                incarnation = (current.incarnation if current else 0) + 1
                self.append({"type": CLAIM, "producer": producer, "incarnation": incarnation, "token": token})
                won = self._map.claims.get(producer)
                if won is None:
                    raise InvariantError(f"a claim of {producer!r} was written and is not in the map")
                if won.token == token:
                    return incarnation

    def check_topic_ids(self) -> None:
        """Raises StreamConflictError where a topic of the stream was deleted, or deleted and created again."""
        if self._described(self.stream.control_topic).id != self._topic_id:
            raise self._recreated(self.stream.control_topic)
        for topic, known in self._map.topic_ids.items():
            described = self._topics.describe(topic)
            if described is None:
                raise StreamConflictError(
                    f"topic {topic} of stream {self.stream.name!r} was deleted: restore it, or delete the stream's other topics "
                    "too and create it anew"
                )
            if described.id != known:
                raise self._recreated(topic)

    def close(self) -> None:
        self._topic.close()

    def __enter__(self) -> ControlLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _read_to(self, end: int, timeout_s: float) -> ShardMap:
        shard_map = self._map
        for offset, event in self._topic.read(shard_map.position, end, timeout_s):
            shard_map = shard_map.apply(event, offset)
        self._map = shard_map.at_least(end)
        return self._map

    def _described(self, name: str) -> Topic:
        topic = self._topics.describe(name)
        if topic is None:
            known = self._topics.describe(self.stream.topic) if name == self.stream.control_topic else None
            if known is not None:
                raise StreamConflictError(
                    f"topic {self.stream.topic} exists but {name} does not: it is not a stream of Headrace, or its control "
                    "topic was deleted. Choose another stream name, or restore the control topic"
                )
            raise UnknownStreamError(
                f"stream {self.stream.name!r} does not exist on this cluster: run `headrace stream create {self.stream.name}`"
            )
        return topic

    def _recreated(self, topic: str) -> StreamConflictError:
        return StreamConflictError(
            f"topic {topic} was deleted and created again (its id changed): positions and marks of the old one do not hold. "
            "Delete the stream's other topics too and create it anew, or restore the topic"
        )


def create_stream(connection: Connection, stream: StreamConfig, topics: Topics | None = None) -> ShardMap:
    """``open_stream``, for whoever needs no more than the map."""
    with open_stream(connection, stream, topics) as log:
        return log.map


def open_stream(connection: Connection, stream: StreamConfig, topics: Topics | None = None) -> ControlLog:
    """A stream's control log, after creating what there is not: its topics and CREATED. Safe to call from many at once, and
    after a crash in the middle: the first valid CREATED counts.

    Raises StreamConflictError where the data topic exists and is not ours, or has other settings than a stream needs.
    """
    topics = topics or Topics(connection)
    topics.check_cluster()
    control_there, data_there = topics.describe(stream.control_topic), topics.describe(stream.topic)
    if control_there is not None and data_there is not None:
        with suppress(UnknownStreamError):
            return ControlLog(connection, stream, topics)
    if control_there is None and data_there is not None:
        raise StreamConflictError(
            f"topic {stream.topic} exists and is not a stream of Headrace (it has no {stream.control_topic}): choose another "
            "stream name, or delete the topic"
        )
    durable = {"min.insync.replicas": "2"} if topics.replication >= 3 else {}
    # One replica: its acknowledgement has to mean that the event is on the disk.
    on_disk = {} if topics.replication >= 2 else {"flush.messages": "1"}
    common = durable | {"unclean.leader.election.enable": "false"}
    topics.create(stream.control_topic, 1, common | on_disk | {"cleanup.policy": "compact"})
    message_bytes_max = str(stream.producer.message_bytes_max + 64 * 1024)
    topics.create(stream.topic, stream.shards, common | {"cleanup.policy": "delete", "max.message.bytes": message_bytes_max})
    _check_data_topic(topics, stream)
    control = ControlTopic(connection, stream.control_topic)
    try:
        if _is_created(control):
            return ControlLog(connection, stream, topics)
        described = topics.describe(stream.topic)
        if described is None or not _is_empty(connection, described):
            raise StreamConflictError(f"topic {stream.topic} holds records that are not a stream's: choose another stream name")
        shards = [
            Shard(f"s{index}", low, high, stream.topic, index) for index, (low, high) in enumerate(even_ranges(stream.shards))
        ]
        control.append(
            {
                "type": CREATED,
                "shards": [shard_event(shard) for shard in shards],
                "hash": HASH_NAME,
                "subject": stream.subject,
                "ordering": stream.ordering,
                "topic_ids": {stream.topic: described.id},
            },
            TIMEOUT_S,
        )
    finally:
        control.close()
    return ControlLog(connection, stream, topics)


def _is_created(control: ControlTopic) -> bool:
    shard_map = ShardMap()
    for offset, event in control.read(0, control.bounds(TIMEOUT_S)[1], TIMEOUT_S):
        shard_map = shard_map.apply(event, offset)
    return shard_map.created


def _is_empty(connection: Connection, topic: Topic) -> bool:
    for partition in range(topic.partitions):
        reader = LogReader(connection, topic.name, partition)
        try:
            if reader.bounds(TIMEOUT_S)[1] > 0:
                return False
        finally:
            reader.close()
    return True


def _check_data_topic(topics: Topics, stream: StreamConfig) -> None:
    if "compact" in topics.settings(stream.topic).get("cleanup.policy", ""):
        raise StreamConflictError(
            f"topic {stream.topic} is compacted: aggregates would be lost with their key, so it cannot be a stream. "
            "Set its cleanup.policy to delete, or choose another topic"
        )
