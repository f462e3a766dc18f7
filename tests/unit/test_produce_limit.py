"""Rate limits per shard: the rate holds on average, whatever the sizes."""

from __future__ import annotations

from pipeline.produce.aggregate import Aggregate
from pipeline.produce.limit import ShardLimits


def aggregate(size: int, records: int = 1, shard: str = "s0") -> Aggregate:
    made = Aggregate(shard, 0)
    for seq in range(records):
        made.append(seq, 0, b"x" * (size // records))
    return made


def sent_within(limits: ShardLimits, one: Aggregate, milliseconds: int) -> int:
    return sum(limits.allow(one, now) for now in range(milliseconds))


def test_without_limits_everything_goes() -> None:
    limits = ShardLimits(None, None)
    assert sent_within(limits, aggregate(1_000_000), 50) == 50
    assert limits.next_ms() is None


def test_bytes_go_at_their_rate_after_a_second_s_worth() -> None:
    limits = ShardLimits(10_000, None)
    assert sent_within(limits, aggregate(1_000), 10_000) == 10 + 100


def test_records_go_at_their_rate_after_a_second_s_worth() -> None:
    limits = ShardLimits(None, 100)
    assert sent_within(limits, aggregate(100, records=10), 10_000) == 10 + 100


def test_an_aggregate_larger_than_a_second_s_worth_goes_and_its_debt_is_waited_for() -> None:
    limits = ShardLimits(1_000, None)
    assert limits.allow(aggregate(5_000), 0)
    assert not limits.allow(aggregate(1), 4_000)
    due = limits.next_ms()
    assert due == 4_001
    assert limits.allow(aggregate(1), due)
    assert limits.held_ms == 1
    assert limits.next_ms() is None


def test_a_shard_does_not_pay_for_another() -> None:
    limits = ShardLimits(1_000, None)
    assert limits.allow(aggregate(5_000), 0)
    assert limits.allow(aggregate(5_000, shard="s1"), 0)
    assert not limits.allow(aggregate(1), 1)
    limits.keep({"s1"})
    assert limits.next_ms() is None
