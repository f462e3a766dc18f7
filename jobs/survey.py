"""The survey: what to do with every message of a micro-batch, decided from its stamp alone (DESIGN.md §3 and §6).

The same pure rules as the consumer's decide (shards.py for voids, repeats.py for repeats); no body is decoded for it. Pure:
values in, a plan out; the marks that come in are not changed, so a micro-batch that is tried again decides the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum

from jobs.commits import Counts
from pipeline.errors import DecodeError
from pipeline.model.repeats import MarkRange, Marks, Verdict
from pipeline.model.shards import Shard, ShardMap, ShardState
from pipeline.model.stamp import REDRIVE_PRODUCER, decode_stamp
from pipeline.schema.framing import FRAME_BYTES, GLUE_PLAIN, GLUE_VERSION

PRODUCER_RETENTION_MS = 7 * 24 * 3600 * 1000
"""Marks of a producer silent for longer go, by the stamps' own time: whoever is silent so long starts under a new name."""


_UNFRAMED = "the value does not start with Confluent's framing (byte 0 and a schema id)"
GLUE_ID = -1
"""Stands for the schema id of a message with AWS Glue's framing, which has none of ours."""


class Fate(IntEnum):
    """What becomes of a message. ACCEPT is the rule and is not listed in a plan."""

    ACCEPT = 0
    SKIP = 1  # void, repeat or END: no rows
    PARTLY = 2  # judge each record by the marks
    REJECT = 3  # one row with the raw bytes and the reason


@dataclass(frozen=True, slots=True)
class Seen:
    """A message as the survey sees it. ``value_bytes`` is None for a null value; ``prefix`` are its first five bytes."""

    topic: str
    partition: int
    offset: int
    stamp: bytes | None
    is_end: bool
    value_bytes: int | None
    prefix: bytes | None
    is_claim: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """An accepted message whose record lies in the claim store, and what was found there: ``prefix`` are its first five bytes;
    None with ``problem``, why there is nothing to be had. ``records`` is what the stamp says."""

    topic: str
    partition: int
    offset: int
    records: int
    prefix: bytes | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a message that is not simply accepted. ``marks`` are for PARTLY, reason and detail for REJECT."""

    topic: str
    partition: int
    offset: int
    fate: Fate
    reason: str | None = None
    detail: str | None = None
    marks: tuple[MarkRange, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with a micro-batch.

    ``rulings`` name the messages that are not plainly accepted; ``marks`` hold after it; ``schema_ids`` are those of the
    messages to decode; ``stamped`` counts the records that accepted and partly repeated messages say they carry, ``partly``
    the latter messages, ``redriven`` those of redrives (jobs/redriven.py looks at their records). ``claims`` are accepted
    messages whose records lie in the claim store: what is said of them holds after ``with_claims``. ``undecided`` are shards
    whose reshard has no outcome yet although the micro-batch may hold records behind their seal: nothing may be written then.
    """

    rulings: list[Ruling]
    schema_ids: set[int]
    marks: Marks
    counts: Counts
    stamped: int
    partly: int
    undecided: frozenset[str] = frozenset()
    redriven: int = 0
    claims: tuple[Claim, ...] = ()


@dataclass(slots=True)
class _Tally:
    rulings: list[Ruling] = field(default_factory=list)
    schema_ids: set[int] = field(default_factory=set)
    undecided: set[str] = field(default_factory=set)
    claims: list[Claim] = field(default_factory=list)
    messages: int = 0
    bytes: int = 0
    repeats: int = 0
    voids: int = 0
    rejected: int = 0
    foreign: int = 0
    stamped: int = 0
    partly: int = 0
    redriven: int = 0
    newest_ms: int = 0


def plan(seen: Iterable[Seen], shard_map: ShardMap, marks: Marks, *, accept_foreign: bool) -> Plan:
    """Judge the messages of a micro-batch.

    ``seen`` in any order; inside a partition they are judged by offset, which is the order they were written in. Partitions
    do not touch each other's ranges: a child's partition is not read before its parents are committed (the lineage gate).
    """
    after, tally = marks.copy(), _Tally()
    for message in sorted(seen, key=lambda one: (one.topic, one.partition, one.offset)):
        tally.messages += 1
        tally.bytes += message.value_bytes or 0
        if message.is_end:
            _leave_out(tally, message)
        elif message.stamp is None:
            _judge_foreign(tally, message, accept_foreign)
        else:
            _judge(tally, message, message.stamp, shard_map, after)
    if tally.newest_ms:
        after.prune(tally.newest_ms - PRODUCER_RETENTION_MS)
    counts = Counts(
        messages=tally.messages,
        bytes=tally.bytes,
        repeats=tally.repeats,
        voids=tally.voids,
        rejected=tally.rejected,
        foreign=tally.foreign,
    )
    return Plan(
        tally.rulings,
        tally.schema_ids,
        after,
        counts,
        tally.stamped,
        tally.partly,
        frozenset(tally.undecided),
        tally.redriven,
        tuple(tally.claims),
    )


def with_claims(plan: Plan, found: Iterable[Claim]) -> Plan:
    """The plan once it is known what the claim store holds for ``plan.claims``."""
    rulings, schema_ids, stamped, rejected = list(plan.rulings), set(plan.schema_ids), plan.stamped, 0
    for claim in found:
        reason, detail = "claim", claim.problem
        if detail is None and not _is_framed(claim.prefix or b""):
            reason, detail = "framing", _UNFRAMED
        if detail is None:
            schema_ids.add(int.from_bytes((claim.prefix or b"")[1:], "big"))
            continue
        rejected += 1
        stamped -= claim.records
        rulings.append(Ruling(claim.topic, claim.partition, claim.offset, Fate.REJECT, reason, detail))
    counts = replace(plan.counts, rejected=plan.counts.rejected + rejected)
    return replace(plan, rulings=rulings, schema_ids=schema_ids, stamped=stamped, counts=counts)


def _judge(tally: _Tally, message: Seen, header: bytes, shard_map: ShardMap, marks: Marks) -> None:
    try:
        stamp = decode_stamp(header)
    except DecodeError as error:
        return _reject(tally, message, "stamp", str(error))
    shard = shard_map.shards.get(stamp.shard)
    if shard is None:
        return _reject(tally, message, "unknown_shard", f"the control log knows no shard {stamp.shard!r}")
    if shard.place != (message.topic, message.partition):
        return _reject(tally, message, "misplaced", f"shard {stamp.shard!r} is written to {shard.topic}/{shard.partition}")
    if shard.state is ShardState.SEALING and message.offset >= _scan_from(shard_map, shard):
        tally.undecided.add(shard.id)
        return None
    if shard.is_void(message.offset):
        tally.voids += stamp.count
        return _leave_out(tally, message)
    verdict, ranges = marks.judge(stamp.producer, stamp.first_seq, stamp.last_seq, shard.low, shard.high)
    if verdict is Verdict.REPEAT:
        tally.repeats += stamp.count
        return _leave_out(tally, message)
    marks.accept(stamp.producer, stamp.last_seq, shard.low, shard.high, stamp.created_at_ms)
    tally.newest_ms = max(tally.newest_ms, stamp.created_at_ms)
    if message.is_claim:
        tally.claims.append(Claim(message.topic, message.partition, message.offset, stamp.count))
    elif not _take(tally, message):
        return None
    tally.stamped += stamp.count
    tally.redriven += stamp.producer.startswith(REDRIVE_PRODUCER)
    if verdict is Verdict.PARTLY:
        tally.partly += 1
        tally.rulings.append(
            Ruling(message.topic, message.partition, message.offset, Fate.PARTLY, marks=tuple(ranges))
        )
    return None


def _judge_foreign(tally: _Tally, message: Seen, accept: bool) -> None:
    """No stamp: a foreign producer's message. Nobody can tell its repeats."""
    if not accept:
        _reject(tally, message, "foreign", "no stamp: not written by Headrace (foreign: accept takes such messages)")
    elif _take(tally, message, foreign=True):
        tally.foreign += 1


def _take(tally: _Tally, message: Seen, *, foreign: bool = False) -> bool:
    """Note the schema of a message to decode; a null value is a tombstone and has none. False if it cannot be decoded."""
    if message.value_bytes is None:
        return True
    prefix = message.prefix or b""
    if foreign and len(prefix) == FRAME_BYTES and prefix[0] == GLUE_VERSION:
        return _take_glue(tally, message, prefix[1])
    if not _is_framed(prefix):
        _reject(tally, message, "framing", _UNFRAMED)
        return False
    tally.schema_ids.add(int.from_bytes(prefix[1:], "big"))
    return True


def _is_framed(prefix: bytes) -> bool:
    return len(prefix) >= FRAME_BYTES and prefix[0] == 0 and prefix[1] <= 0x7F


def _take_glue(tally: _Tally, message: Seen, compression: int) -> bool:
    """AWS Glue's framing: decoded with the stream's own schema. Spark has no zlib for a column."""
    if compression != GLUE_PLAIN:
        _reject(tally, message, "framing", "framed by AWS Glue and compressed, which a consumer reads and a table does not")
        return False
    tally.schema_ids.add(GLUE_ID)
    return True


def _leave_out(tally: _Tally, message: Seen) -> None:
    tally.rulings.append(Ruling(message.topic, message.partition, message.offset, Fate.SKIP))


def _reject(tally: _Tally, message: Seen, reason: str, detail: str) -> None:
    tally.rejected += 1
    tally.rulings.append(Ruling(message.topic, message.partition, message.offset, Fate.REJECT, reason, detail))


def _scan_from(shard_map: ShardMap, shard: Shard) -> int:
    """The first offset at which the END marker of the pending reshard may stand: whatever is below cannot be void."""
    return min(
        (reshard.scan_from[shard.id] for reshard in shard_map.pending.values() if shard.id in reshard.parents), default=0
    )
