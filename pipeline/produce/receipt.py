"""What ``put`` returns at once: a slot that points into an aggregate. No Future per record: those are too dear."""

from __future__ import annotations

from threading import Condition
from time import monotonic

from pipeline.errors import BrokerUnavailableError, InvariantError
from pipeline.model.record import OrderToken, Receipt
from pipeline.model.shards import ShardMap
from pipeline.produce.aggregate import Aggregate, State


class Settled:
    """What all pending receipts of one producer share: the condition they wait on, and the newest shard map."""

    __slots__ = ("condition", "shard_map")

    def __init__(self, condition: Condition, shard_map: ShardMap) -> None:
        self.condition = condition
        self.shard_map = shard_map


class PendingReceipt:
    """A record on its way. Resolves once: to a Receipt, or to an error. Safe from any thread."""

    __slots__ = ("_aggregate", "_index", "_settled")

    def __init__(self, aggregate: Aggregate, index: int, settled: Settled) -> None:
        self._aggregate = aggregate
        self._index = index
        self._settled = settled

    def done(self) -> bool:
        """Whether ``result`` returns or raises at once."""
        with self._settled.condition:
            return self._where()[0].state in (State.ACKNOWLEDGED, State.FAILED)

    def result(self, timeout: float | None = None) -> Receipt:
        """Wait until the record is acknowledged, at most ``timeout`` seconds (None: as long as it takes).

        Raises what the record failed with; BrokerUnavailableError after the timeout: the record is still on its way then,
        and a later call may succeed.
        """
        deadline = None if timeout is None else monotonic() + timeout
        with self._settled.condition:
            while True:
                aggregate, index = self._where()
                if aggregate.state is State.ACKNOWLEDGED:
                    return self._receipt(aggregate, index)
                if aggregate.state is State.FAILED:
                    raise aggregate.error or InvariantError("a record failed without a reason")
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    raise BrokerUnavailableError(
                        f"the record was not acknowledged within {timeout:g} s; it is still on its way: wait on, or check the "
                        "broker (`headrace status`)"
                    )
                self._settled.condition.wait(left)

    def _where(self) -> tuple[Aggregate, int]:
        self._aggregate, self._index = self._aggregate.resolve(self._index)
        return self._aggregate, self._index

    def _receipt(self, aggregate: Aggregate, index: int) -> Receipt:
        shard = self._settled.shard_map.shards[aggregate.shard]
        order = None if aggregate.offset is None else OrderToken(shard.generation, aggregate.offset, index)
        return Receipt(shard.id, shard.partition, aggregate.offset, index, aggregate.seqs[index], order)
