"""Every error that Headrace raises on purpose, grouped by how its reader should react.

    HeadraceError
    ├── ConfigError               correct headrace.yml (or the call) and start again
    ├── RecordError               this record cannot go on; the others can
    │   ├── SchemaMismatchError       a value does not fit the stream's schema
    │   ├── RecordTooLargeError       larger than the broker takes
    │   ├── RecordExpiredError        waited with us for longer than its expiry
    │   └── DecodeError               bytes that are not what they claim to be
    ├── RetryableError            the same call may succeed later
    │   ├── BufferFullError           the producer's bounded memory is full
    │   ├── BrokerUnavailableError    no broker answered in time
    │   ├── RegistryUnavailableError  no schema registry answered in time
    │   └── ClaimStoreError           the file store of claims did not answer
    ├── StopError                 go no further until a person has acted
    │   ├── UnknownStreamError        no such stream on this cluster or in headrace.yml
    │   ├── StreamConflictError       what is there is not the stream that was asked for
    │   ├── SchemaError               a schema that does not parse or may not be used
    │   ├── FencedError               a newer producer runs under the same name
    │   ├── UpgradeRequiredError      the control log holds an event of a newer version
    │   ├── ControlLogError           the control log is missing, shorter than read, or damaged
    │   ├── TrimmedError              retention removed records that were not yet read
    │   ├── HandlerError              a handler failed for good, and its policy is to stop
    │   ├── ReshardRefusedError       a split or a merge that is not valid here
    │   ├── StackError                the embedded stack cannot start or is not ours
    │   ├── TableError                a table path or its Spark checkpoint is not what it should be
    │   └── RuleError                 a rule with `on_fail: stop` does not hold
    ├── ClosedError               the producer or consumer was closed
    └── InvariantError            a bug of ours; stop and report it

Every class takes its message alone, or fields that it keeps as attributes, and survives pickling (Spark moves errors
between processes). No message carries a secret or the content of a record.
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Base of all errors that Headrace raises on purpose."""


class ConfigError(HeadraceError):
    """headrace.yml, an environment override or an argument is wrong; the message names file, line and what is expected."""


class RecordError(HeadraceError):
    """One record cannot go on: correct it, or send it to the dead letters. Nothing else is affected."""


class SchemaMismatchError(RecordError):
    """A value does not fit the stream's schema.

    ``field`` is the path of the offending field (``"pilot.age"``; ``""`` for the whole value), ``reason`` says what was
    expected and what was found (a type's name, never the content).
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"field {self.field!r}: {self.reason}" if self.field else self.reason


class RecordTooLargeError(RecordError):
    """A record is larger than the broker takes. ``size_bytes`` and ``limit_bytes`` are its size and the limit."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(size_bytes, limit_bytes)
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return (
            f"the record takes {self.size_bytes:,} bytes, the limit is {self.limit_bytes:,}: "
            "make it smaller, or raise message_bytes_max (and the topic's max.message.bytes)"
        )


class RecordExpiredError(RecordError):
    """A record waited with the producer for longer than its expiry and was not sent."""


class DecodeError(RecordError):
    """Bytes that cannot be decoded: truncated, hostile, or not of the schema they claim."""


class RetryableError(HeadraceError):
    """The same call may succeed later; nothing was lost."""


class BufferFullError(RetryableError):
    """The producer's buffer is full and did not drain within the timeout; the record was not taken."""

    def __init__(self, buffered_bytes: int, limit_bytes: int, buffered_records: int, limit_records: int) -> None:
        super().__init__(buffered_bytes, limit_bytes, buffered_records, limit_records)
        self.buffered_bytes = buffered_bytes
        self.limit_bytes = limit_bytes
        self.buffered_records = buffered_records
        self.limit_records = limit_records

    def __str__(self) -> str:
        return (
            f"the buffer holds {self.buffered_bytes:,} of {self.limit_bytes:,} bytes and {self.buffered_records:,} of "
            f"{self.limit_records:,} records and did not drain in time: put slower, wait longer (timeout=), or check the broker"
        )


class BrokerUnavailableError(RetryableError):
    """No broker answered in time."""


class RegistryUnavailableError(RetryableError):
    """No schema registry answered in time."""


class ClaimStoreError(RetryableError):
    """The file store of claims (``claims:``) cannot be reached or written."""


class StopError(HeadraceError):
    """Going on would lose, repeat or mix records; a person has to act first."""


class UnknownStreamError(StopError):
    """The stream is neither on this cluster nor in headrace.yml."""


class StreamConflictError(StopError):
    """What is on the cluster is not the stream that was asked for (a foreign topic, another hash, another cluster)."""


class SchemaError(StopError):
    """A schema that does not parse, is not supported, or is not compatible; the message gives the reasons."""


class FencedError(StopError):
    """A newer producer claimed the same name; this one acknowledges nothing more."""


class UpgradeRequiredError(StopError):
    """The control log holds an event type that this version does not know; upgrade before going on."""


class ControlLogError(StopError):
    """The control log is missing, shorter than already read, or damaged."""


class TrimmedError(StopError):
    """Retention removed records before they were read."""


class HandlerError(StopError):
    """A record's handler raised to the end of its retries, and ``on_failure`` is ``stop``."""


class ReshardRefusedError(StopError):
    """A split or a merge that is not valid for the stream as it is now."""


class StackError(StopError):
    """The embedded stack cannot start, or what answers is not ours."""


class TableError(StopError):
    """A table's path or its Spark checkpoint holds something else than it should."""


class RuleError(StopError):
    """A quality rule with ``on_fail: stop`` does not hold; nothing of its micro-batch was written."""


class ClosedError(HeadraceError):
    """The producer or consumer was closed before this could happen."""


class InvariantError(HeadraceError):
    """A rule that must always hold did not: a bug of Headrace. Stop, keep the logs, report it."""
