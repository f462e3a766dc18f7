"""Available-now ends, whatever goes on meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs.bronze import BronzeJob
from pipeline.reshard import split

MakeLake = Callable[..., Any]


def test_an_available_now_run_follows_the_reshards_before_it_and_leaves_those_after_it_began_to_the_next(
    lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = lake(shards=1)
    shop.put(("a", 1), ("b", 1))
    split(shop.stream, "s0", config=shop.config)
    shop.put(("a", 2), ("b", 2))
    has_more, asked = BronzeJob.has_more, []

    def reshard_first(job: BronzeJob) -> bool:
        if len(asked) < 3:
            leaf = shop.shard_map().leaves[0]
            split(shop.stream, leaf.id, config=shop.config)
            shop.put(("a", 3 + len(asked)), ("b", 3 + len(asked)))
        asked.append(True)
        return has_more(job)

    monkeypatch.setattr(BronzeJob, "has_more", reshard_first)
    shop.run("bronze.orders")
    assert len(asked) == 2  # after the parent, after its children
    assert {number for number in shop.numbers() if number <= 2} == {1, 2}
    monkeypatch.undo()
    shop.run("bronze.orders")
    assert shop.numbers() == [1, 1, 2, 2, 3, 3, 4, 4]
