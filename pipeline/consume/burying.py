"""Into the dead letters: records whose handler gave up, messages that cannot be decoded. Raw, with the reason."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pipeline.consume.counters import Counters
from pipeline.consume.parts import Letters
from pipeline.consume.unpack import Unpacked, Unpacker
from pipeline.deadletter.letters import TEXT_CHARS_MAX, DeadLetter
from pipeline.model.record import Record
from pipeline.schema.framing import frame, split_frame

log = logging.getLogger("headrace.consume")


class Burying:
    """Makes the topic when the first letter is written. Not thread-safe."""

    def __init__(self, letters: Callable[[], Letters], group: str, unpacker: Unpacker, counters: Counters) -> None:
        self._make_letters = letters
        self._group = group
        self._unpacker = unpacker
        self._counters = counters
        self._letters: Letters | None = None

    def record(self, unpacked: Unpacked, record: Record, error: Exception, attempts: int, first_ms: int) -> None:
        """Keep one record: its own bytes alone, in an aggregate of one, where it came in an aggregate."""
        order = record.order
        letter = DeadLetter(
            record.topic,
            record.partition,
            record.offset,
            record.index,
            type(error).__name__,
            str(error)[:TEXT_CHARS_MAX],
            attempts,
            first_ms,
            _now_ms(),
            self._group,
            record.schema_id,
            record.producer,
            record.seq,
            record.id,
            record.shard,
            (order.generation, order.offset, order.index),
        )
        self._put(letter, record.key.encode(), self._raw(unpacked, record.index), unpacked)

    def message(self, unpacked: Unpacked) -> None:
        """Keep a message that cannot be decoded, whole."""
        fetched, error, now = unpacked.fetched, unpacked.error, _now_ms()
        text = str(error)[:TEXT_CHARS_MAX]
        log.warning("%s[%d] at %d goes to the dead letters: %s", *fetched.place, fetched.offset, text)
        letter = DeadLetter(*fetched.place, fetched.offset, -1, type(error).__name__, text, 1, now, now, self._group)
        self._put(letter, fetched.key, fetched.value, unpacked)

    def close(self) -> None:
        if self._letters is not None:
            self._letters.close()

    def _put(self, letter: DeadLetter, key: bytes | None, raw: bytes | None, unpacked: Unpacked) -> None:
        if self._letters is None:
            self._letters = self._make_letters()
        self._letters.put(letter, key, raw, unpacked.fetched.headers)
        self._counters.buried()

    def _raw(self, unpacked: Unpacked, index: int) -> bytes | None:
        raw = unpacked.fetched.value
        if raw is None or unpacked.stamp is None:
            return raw
        schema_id, body = split_frame(raw)
        decoder = self._unpacker.decoder(schema_id)
        return frame(schema_id, decoder.cut(body, index)) if decoder.is_envelope else raw


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
