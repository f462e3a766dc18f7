"""Which sequence a record gets: the next of its producer's own, or its position in its source."""

from __future__ import annotations

from pipeline.produce.state import ProducerState

INCARNATION_SHIFT = 40  # a named producer's own sequences start at incarnation << 40: they rise from start to start
MAX_SEQ = 2**63 - 1


class Numbering:
    """Of one producer; its methods expect the state's lock to be held."""

    def __init__(self, state: ProducerState, incarnation: int, named: bool) -> None:
        self._state = state
        self._named = named
        self._by_position: bool | None = None
        state.locked_begin_at(incarnation << INCARNATION_SHIFT)
        self._first_seq = state.next_seq

    @property
    def locked_last_seq(self) -> int:
        """Of the record that was put last; -1 at first."""
        return self._state.next_seq - 1 if self._state.next_seq > self._first_seq else -1

    def locked_check(self, position: int | None) -> None:
        """Raises ValueError where a record of this position (None: of none) cannot be put."""
        if self._by_position is None:
            if position is not None and not self._named:
                raise ValueError("position= needs a named producer, Producer(stream, name=…): it has to outlive a restart")
            self._by_position = position is not None
            if self._by_position:
                self._first_seq = 0
                self._state.locked_begin_at(0)
        if self._by_position != (position is not None):
            raise ValueError("give every record of a producer a position, or none: their sequences would overlap")
        if position is not None and not self._state.next_seq <= position <= MAX_SEQ:
            raise ValueError(f"positions have to rise: {position} after {self.locked_last_seq}")

    def locked_wait_for_room(self, position: int | None, size_bytes: int, records: int, timeout_s: float) -> int:
        """Wait for room; returns the sequence of the first of these records. Raises as ``locked_check`` and the wait do."""
        self.locked_check(position)
        self._state.locked_wait_for_room(size_bytes, records, timeout_s)
        self.locked_check(position)  # again: the wait gave the lock away
        return self._state.next_seq if position is None else position
