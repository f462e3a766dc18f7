"""A topic that is no stream of Headrace (`format: avro|json|bytes`), seen as one: each partition a shard without a past."""

from __future__ import annotations

from pipeline.config import Connection, StreamConfig
from pipeline.errors import StreamConflictError, UnknownStreamError
from pipeline.kafka.topics import Topics
from pipeline.model.keys import HASH_NAME, even_ranges
from pipeline.model.shards import CREATED, Shard, ShardMap, shard_event


class ForeignTopic:
    """Partitions that are added are found at the next barrier. Raises StreamConflictError where the topic was recreated."""

    def __init__(self, connection: Connection, stream: StreamConfig) -> None:
        self._topics = Topics(connection)
        self._stream = stream
        self._id = ""
        self._partitions = 0
        self._map = ShardMap()
        self.barrier()

    @property
    def map(self) -> ShardMap:
        return self._map

    def barrier(self) -> ShardMap:
        topic = self._topics.describe(self._stream.topic)
        if topic is None:
            raise UnknownStreamError(f"topic {self._stream.topic} does not exist on this cluster: check its name in headrace.yml")
        if self._id and topic.id != self._id:
            raise StreamConflictError(f"topic {topic.name} was deleted and created again: its positions do not hold any more")
        self._id = topic.id
        if topic.partitions != self._partitions:
            self._partitions = topic.partitions
            ranges = enumerate(even_ranges(topic.partitions))
            shards = [Shard(f"p{number}", low, high, topic.name, number) for number, (low, high) in ranges]
            event = {"type": CREATED, "shards": [shard_event(shard) for shard in shards], "hash": HASH_NAME}
            self._map = ShardMap().apply(event | {"subject": self._stream.subject, "ordering": "strict"}, 0)
        return self._map

    def close(self) -> None:
        """Nothing is held."""
