"""The protocol's rules as the simulated shells apply them. Subclasses take one away, to see the simulation fail.

Rules inside the pure cores are taken away by ``patches``: functions of the product that are replaced for one run.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pipeline.consume.assignment import gate
from pipeline.model import settling
from pipeline.model.repeats import MarkRange, Marks, Verdict
from pipeline.model.settling import Fate, Settling
from pipeline.model.shards import PING, Place, Shard, ShardMap, ShardState

if TYPE_CHECKING:
    from tests.property.simulation.world import Message, World


class Rules:
    """All of them."""

    marks_in_one_piece = False
    newest_marks = False
    focus: Mapping[str, Any] = MappingProxyType({})
    """Fields of the plan: more of what brings a rare case about."""

    def patches(self) -> list[tuple[Any, str, Any]]:
        """(object, attribute, replacement) for a run."""
        return []

    def begin_barrier(self, world: World) -> int:
        """What a barrier that begins now shows at least: the end of the control log; where it is replicated, a PING appended
        to it."""
        if world.plan.replicated:
            world.control.append({"type": PING, "from": "p"})
        return world.control.end

    def barrier(self, world: World, known: int, begun: int) -> int:
        """Position in the control log that a barrier shows: at least what it showed when it began, at most its end now."""
        return world.rng.randint(max(known, begun), world.control.end)

    def find_end(self, log: list[Message], shard: str, reshard: str, start: int) -> int | None:
        return next((at for at in range(start, len(log)) if log[at].end == (shard, reshard)), None)

    def is_void(self, shard: Shard, offset: int) -> bool:
        return shard.is_void(offset)

    def readable(self, shard_map: ShardMap, committed: Mapping[Place, int]) -> set[Place]:
        return gate(shard_map, committed, {})

    def marks(self) -> Marks:
        return Marks()


class NoBarrier(Rules):
    """Deliveries are acknowledged by the map that the producer happens to have."""

    def barrier(self, world: World, known: int, begun: int) -> int:
        return world.rng.choice((known, known, known, world.control.end))


class PlainEndOffsetRead(Rules):
    """A barrier asks for the end offset of a replicated log, and a deposed leader may answer: with its own, old end."""

    focus = MappingProxyType({"replicated": True, "p_leader_freezes": 0.02})

    def begin_barrier(self, world: World) -> int:
        deposed = world.control.deposed_end
        return world.control.end if deposed is None else deposed

    def barrier(self, world: World, known: int, begun: int) -> int:
        return max(known, begun)


class _Fate(Rules):
    def fate(self, what: Fate) -> Fate:
        raise NotImplementedError

    def patches(self) -> list[tuple[Any, str, Any]]:
        real = settling.fate
        return [(settling, "fate", lambda shard_map, shard, offset: self.fate(real(shard_map, shard, offset)))]


class NoHold(_Fate):
    """What is delivered while its shard is sealing is acknowledged."""

    def fate(self, what: Fate) -> Fate:
        return Fate.ACKNOWLEDGE if what is Fate.HOLD else what


class NoSendingAgain(_Fate):
    """A delivered aggregate is done, void or not."""

    def fate(self, what: Fate) -> Fate:
        return Fate.ACKNOWLEDGE if what is Fate.SEND_AGAIN else what


class NoOffsetIsEnough(Rules):
    """A success without an offset counts at a sealed shard too."""

    def patches(self) -> list[tuple[Any, str, Any]]:
        real = settling.fate

        def fate(shard_map: ShardMap, shard: str, offset: int | None) -> Fate:
            what = real(shard_map, shard, offset)
            return Fate.ACKNOWLEDGE if offset is None and what is Fate.SEND_AGAIN else what

        return [(settling, "fate", fate)]


class AnyEnd(Rules):
    """END does not name its reshard."""

    focus = MappingProxyType({"p_abort": 0.3, "p_resharder_sleeps": 0.1, "resharders_at_once": 3, "reshards": 12, "steps": 600})

    def find_end(self, log: list[Message], shard: str, reshard: str, start: int) -> int | None:
        return next((at for at in range(start, len(log)) if (log[at].end or ("",))[0] == shard), None)


class NoVoid(Rules):
    """Readers read past the seal."""

    def is_void(self, shard: Shard, offset: int) -> bool:
        return False


class ChildrenAtOnce(Rules):
    """A child takes records before its parents are settled in the producer."""

    def patches(self) -> list[tuple[Any, str, Any]]:
        def may_send(self: Settling, shard_id: str) -> bool:
            shard = self.shard_map.shards.get(shard_id)
            return shard is not None and shard.state is ShardState.OPEN

        return [(Settling, "_may_send", may_send)]


class _OneMaximum(Marks):
    __slots__ = ()

    def judge(self, producer: str, first_seq: int, last_seq: int, low: int, high: int) -> tuple[Verdict, list[MarkRange]]:
        _, ranges = super().judge(producer, first_seq, last_seq, low, high)
        mark = max(r.seq for r in ranges)
        verdict = Verdict.ACCEPT if mark < first_seq else Verdict.REPEAT if mark >= last_seq else Verdict.PARTLY
        return verdict, [MarkRange(low, high, mark)]


class OneMarkAShard(Rules):
    """One maximum for each producer and shard, whatever the parents' marks were."""

    def marks(self) -> Marks:
        return _OneMaximum()


class MarksInOnePiece(Rules):
    """A reader keeps the marks of its partitions in one piece, not each partition's by themselves."""

    marks_in_one_piece = True
    focus = MappingProxyType({"p_rebalance": 0.05, "p_reader_crashes": 0.01, "p_late": 0.2, "readers": 3})


class NewestMarks(Rules):
    """Marks are the newest of a partition, not those that the commit points to."""

    newest_marks = True
    focus = MappingProxyType({"p_reader_sleeps": 0.02, "p_rebalance": 0.02, "p_late": 0.2, "readers": 3})


class NoMarks(Rules):
    """No repeat is known."""

    def marks(self) -> Marks:
        class Forgetful(Marks):
            __slots__ = ()

            def accept(self, producer: str, last_seq: int, low: int, high: int, seen_at_ms: int = 0) -> None:
                pass

        return Forgetful()


class NoGate(Rules):
    """Children are read at once."""

    def readable(self, shard_map: ShardMap, committed: Mapping[Place, int]) -> set[Place]:
        return set(shard_map.places)
