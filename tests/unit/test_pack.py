"""Packing, and where a receipt finds its record after it was packed again."""

from __future__ import annotations

import pytest

from pipeline.compiled import core
from pipeline.config import Aggregation
from pipeline.errors import ClosedError
from pipeline.produce.aggregate import Aggregate, State
from pipeline.produce.pack import RELATIVE_SEQ_MAX, Packer
from pipeline.schema.varint import zigzag


@pytest.fixture(autouse=True, params=["compiled", "python"])
def entries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here with either kind of entries."""
    assert core is not None, "the compiled part was not built: see `make tools`"
    if request.param == "python":
        monkeypatch.setattr("pipeline.produce.entries.core", None)


def packer(bytes_max: int = 10_000, records_max: int = 100, linger_ms: int = 50) -> Packer:
    return Packer(Aggregation(bytes_max=bytes_max, records_max=records_max, linger_ms=linger_ms))


def add(pack: Packer, shard: str, seq: int, size: int = 10, now_ms: int = 0) -> list[Aggregate]:
    return pack.add(shard, seq, seq, b"x" * size, now_ms)[2]


def test_an_aggregate_is_sealed_when_the_next_record_would_pass_the_bytes() -> None:
    pack = packer(bytes_max=1024)
    assert add(pack, "s0", 0, 1000) == []
    (sealed,) = add(pack, "s0", 1, 100)
    assert sealed.seqs == [0]
    assert [a.seqs for a in pack.seal()] == [[1]]


def test_an_aggregate_is_sealed_at_once_when_it_is_exactly_full() -> None:
    (sealed,) = add(packer(bytes_max=1024), "s0", 0, 1024)
    assert sealed.seqs == [0]


def test_a_record_larger_than_the_limit_goes_alone() -> None:
    pack = packer(bytes_max=1024)
    add(pack, "s0", 0)
    before, alone = add(pack, "s0", 1, 5000)
    assert (before.seqs, alone.seqs) == ([0], [1])
    assert pack.open_shards() == []


def test_an_aggregate_is_sealed_when_it_has_the_records() -> None:
    pack = packer(records_max=2)
    assert add(pack, "s0", 0) == []
    (sealed,) = add(pack, "s0", 1)
    assert sealed.seqs == [0, 1]


def test_an_aggregate_is_sealed_when_a_sequence_would_not_fit_an_int() -> None:
    pack = packer()
    add(pack, "s0", 0)
    assert add(pack, "s0", RELATIVE_SEQ_MAX) == []
    (sealed,) = add(pack, "s0", RELATIVE_SEQ_MAX + 1)
    assert sealed.seqs == [0, RELATIVE_SEQ_MAX]


def test_without_aggregation_every_record_goes_alone() -> None:
    (sealed,) = add(Packer(None), "s0", 0)
    assert sealed.seqs == [0]


def test_what_lingered_long_enough_is_due() -> None:
    pack = packer(linger_ms=50)
    add(pack, "s0", 0, now_ms=100)
    add(pack, "s1", 1, now_ms=120)
    add(pack, "s0", 2, now_ms=149)
    assert pack.next_deadline_ms() == 150
    assert pack.due(149) == []
    (due,) = pack.due(150)
    assert (due.shard, due.seqs) == ("s0", [0, 2])
    assert pack.next_deadline_ms() == 170
    assert pack.lowest_seq() == 1


def test_only_the_shards_named_are_sealed() -> None:
    pack = packer()
    add(pack, "s0", 0)
    add(pack, "s1", 1)
    assert [a.shard for a in pack.seal(["s1", "s7"])] == ["s1"]
    assert pack.open_shards() == ["s0"]
    assert [a.shard for a in pack.seal()] == ["s0"]
    assert pack.next_deadline_ms() is pack.lowest_seq() is None


def test_entries_count_from_the_aggregate_s_first_sequence() -> None:
    pack = packer()
    for seq in (7, 9, 12):
        pack.add("s0", seq, 0, str(seq).encode(), 0)
    (sealed,) = pack.seal()
    assert b"".join(sealed.entries.content()) == b"".join((zigzag(0), b"7", zigzag(2), b"9", zigzag(5), b"12"))
    assert (sealed.first_seq, sealed.last_seq, sealed.count, sealed.size_bytes) == (7, 12, 3, 4)


@pytest.mark.parametrize(
    ("bytes_max", "records_max", "expected"), [(10_000, 2, [2, 2, 1]), (1024, 100, [2, 2, 1]), (10_000, 9, [5])]
)
def test_repacking_keeps_within_the_same_bounds(bytes_max: int, records_max: int, expected: list[int]) -> None:
    parcel = Aggregate("s0", 0)
    for seq in range(5):
        parcel.append(seq, seq, b"x" * 500)
    again = list(packer(bytes_max, records_max).repack("s9", parcel.records(), 0))
    assert [a.count for a in again] == expected
    assert [seq for a in again for seq in a.seqs] == list(range(5))


def test_repacking_cuts_where_a_sequence_would_not_fit_an_int() -> None:
    parcel, far = Aggregate("s0", 0), Aggregate("s1", 0)
    parcel.append(0, 0, b"x")
    far.append(RELATIVE_SEQ_MAX + 1, 0, b"x")
    again = list(packer().repack("s9", [*parcel.records(), *far.records()], 0))
    assert [a.count for a in again] == [1, 1]


def test_a_receipt_follows_its_record_when_it_was_packed_again_twice() -> None:
    pack = packer(records_max=1)
    first = Aggregate("s0", 0)
    for seq in (4, 6):
        first.append(seq, 0, b"x")
    records = first.records()
    assert first.resolve(1) == (first, 1), "taken out, not packed again yet"
    _, second = pack.repack("s1", records, 0)
    assert first.resolve(1) == (second, 0)
    (third,) = pack.repack("s2", second.records(), 0)
    third.acknowledge(17)
    aggregate, index = first.resolve(1)
    assert (aggregate.state, aggregate.offset, aggregate.seqs[index]) == (State.ACKNOWLEDGED, 17, 6)
    assert first.resolve(0)[0].state is State.WAITING


def test_an_acknowledged_aggregate_lets_go_of_its_records_and_keeps_its_sequences() -> None:
    parcel = Aggregate("s0", 0)
    parcel.append(3, 0, b"x" * 100)
    parcel.acknowledge(None)
    assert (parcel.bodies, parcel.seqs, parcel.offset) == ([], [3], None)


def test_a_failed_aggregate_says_why() -> None:
    parcel = Aggregate("s0", 0)
    parcel.append(3, 0, b"x")
    parcel.fail(error := ClosedError("closed"))
    assert (parcel.state, parcel.error) == (State.FAILED, error)


def test_a_claim_stays_alone_and_keeps_its_reference_when_it_is_packed_again() -> None:
    parcel, claimed, behind = Aggregate("s0", 0), Aggregate("s0", 0), Aggregate("s0", 0)
    for seq, one in enumerate((parcel, claimed, behind)):
        one.append(seq, 0, b"x")
    claimed.claim = b"reference"
    records = [record for one in (parcel, claimed, behind) for record in one.records()]
    again = list(packer().repack("s9", records, 0))
    assert [(one.seqs, one.claim) for one in again] == [([0], None), ([1], b"reference"), ([2], None)]
