"""What ``put`` returns at once: a pair that points into an aggregate. No Future per record: those are too dear."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition
from time import monotonic

from pipeline.errors import BrokerUnavailableError, InvariantError
from pipeline.model.record import OrderToken, Receipt
from pipeline.model.shards import ShardMap
from pipeline.produce.aggregate import Aggregate, State


class Settled:
    """What all pending receipts of one producer share: the condition they wait on, and the newest shard map.

    ``urgent`` counts who waits right now; the settler takes its time only while nobody does."""

    __slots__ = ("condition", "hurry", "ring", "shard_map", "urgent")

    def __init__(self, condition: Condition, hurry: Condition, shard_map: ShardMap) -> None:
        self.condition = condition
        self.hurry = hurry  # of the same lock
        self.shard_map = shard_map
        self.urgent = 0
        self.ring: Callable[[], None] | None = None  # wakes coroutines

    def locked_wake(self) -> None:
        """Something was settled."""
        self.condition.notify_all()
        if self.ring is not None:
            self.ring()

    def locked_wait(self, timeout_s: float | None, condition: Condition | None = None) -> None:
        """Wait for something to be settled, and let the settler know that somebody does."""
        self.urgent += 1
        self.hurry.notify()
        try:
            (condition or self.condition).wait(timeout_s)
        finally:
            self.urgent -= 1


class PendingReceipt(tuple[Aggregate, int]):
    """A record on its way. Resolves once: to a Receipt, or to an error. Safe from any thread."""

    # A tuple of (aggregate, index), since one is made for each record, and nothing else is made as fast.
    __slots__ = ()

    def done(self) -> bool:
        """Whether ``result`` returns or raises at once."""
        with self._settled.condition:
            return self.locked_done()

    def locked_done(self) -> bool:
        return self._where()[0].state in (State.ACKNOWLEDGED, State.FAILED)

    def result(self, timeout: float | None = None) -> Receipt:
        """Wait until the record is acknowledged, at most ``timeout`` seconds (None: as long as it takes).

        Raises what the record failed with; BrokerUnavailableError after the timeout: the record is still on its way then,
        and a later call may succeed.
        """
        deadline = None if timeout is None else monotonic() + timeout
        settled = self._settled
        with settled.condition:
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
                settled.locked_wait(left)

    @property
    def _settled(self) -> Settled:
        settled = self[0].settled
        if settled is None:
            raise InvariantError("a receipt of an aggregate without a producer")
        return settled

    def _where(self) -> tuple[Aggregate, int]:
        return self[0].resolve(self[1])

    def _receipt(self, aggregate: Aggregate, index: int) -> Receipt:
        shard = self._settled.shard_map.shards[aggregate.shard]
        order = None if aggregate.offset is None else OrderToken(shard.generation, aggregate.offset, index)
        return Receipt(shard.id, shard.partition, aggregate.offset, index, aggregate.seq_at(index), order)
