"""Records above the message limit: they lie in a claim store, and their references go into the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config import StreamConfig
from pipeline.errors import RecordTooLargeError
from pipeline.produce.aggregate import Aggregate
from pipeline.produce.numbering import Numbering
from pipeline.produce.stamping import message_of
from pipeline.produce.state import RECORD_OVERHEAD_BYTES, ProducerState
from pipeline.schema.varint import RELATIVE

if TYPE_CHECKING:
    from pipeline.claims.store import ClaimStore


class Claiming:
    """Of one producer. ``record_bytes_max`` is what goes without a claim. Safe from many threads."""

    def __init__(
        self, state: ProducerState, stream: StreamConfig, schema_id: int, numbering: Numbering, record_bytes_max: int
    ) -> None:
        self._state = state
        self._stream = stream
        self._schema_id = schema_id
        self._numbering = numbering
        self._record_bytes_max = record_bytes_max
        self._store: ClaimStore | None = None

    def put(self, body: bytes, stub: bytes, hashed: int, position: int | None, timeout_s: float) -> tuple[Aggregate, int]:
        """Take the record; ``stub`` is an entry of its key, for routing by ``hashed``. Returns (aggregate, index). Raises
        RecordTooLargeError without a claim store or above its limit, and what the store and ``put`` raise."""
        claims = self._stream.claims
        if claims is None or len(body) > claims.bytes_max:
            raise RecordTooLargeError(len(body), self._record_bytes_max if claims is None else claims.bytes_max)
        state = self._state
        with state.lock:
            self._numbering.locked_check(position)
            state.locked_check()
        if self._store is None:
            from pipeline.claims.store import ClaimStore  # here, since fsspec is an optional extra

            self._store = ClaimStore(claims)
        claim = self._store.put(self._stream.name, message_of(self._schema_id, 1, (RELATIVE[0], body))).encode()
        with state.lock:
            seq = self._numbering.locked_wait_for_room(position, len(stub) + RECORD_OVERHEAD_BYTES, 1, timeout_s)
            return state.locked_put_claim(hashed, stub, seq, claim)
