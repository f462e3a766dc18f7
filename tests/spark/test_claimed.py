"""Records above the message limit, whose messages carry a reference into a claim store, in bronze."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.audit import audit
from pipeline import Producer
from pipeline.errors import ClaimStoreError

MakeLake = Callable[..., Any]
BIG = "x" * 2_000_000


def put(shop: Any, *numbers: int) -> None:
    """One order a message, with a note that is too large for one."""
    with Producer(shop.stream, config=shop.config, linger_ms=1) as producer:
        for number in numbers:
            producer.put({"item": "lamp", "number": number, "note": BIG + str(number)}, key="lamp")
        producer.flush()


@pytest.fixture
def shop(lake: MakeLake, tmp_path: Path) -> Any:
    return lake(shards=1, claims={"url": f"file://{tmp_path}/claims"})


def test_claimed_records_are_rows_between_their_neighbours_and_lost_or_changed_ones_are_rejected(
    shop: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "claims" / shop.stream
    shop.put(("lamp", 0))
    put(shop, 1)
    kept = set(folder.iterdir())
    put(shop, 2)
    [lost] = set(folder.iterdir()) - kept
    lost.unlink()
    kept = set(folder.iterdir())
    put(shop, 3)
    [changed] = set(folder.iterdir()) - kept
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    shop.put(("lamp", 4))
    shop.run()

    rows = shop.read().select("number", "note", "_meta.order.offset").orderBy("offset").collect()
    assert [(row["number"], row["note"]) for row in rows] == [(0, None), (1, BIG + "1"), (4, None)]
    reasons = sorted((row["reason"], row["detail"].rpartition(": ")[2]) for row in shop.rejected())
    assert reasons == [("claim", "its checksum differs"), ("claim", "was it deleted?")]
    assert all(bytes(row["raw"]).startswith(b'{"name"') for row in shop.rejected())
    assert (shop.totals()["records"], shop.totals()["rejected"], shop.totals()["repeats"]) == (3, 2, 0)
    assert [one.findings for one in audit(shop.spark, shop.config, "bronze.orders")] == [[]]


def test_a_store_that_does_not_answer_is_waited_for_and_nothing_is_rejected(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(shop, 1)
    [kept] = (tmp_path / "claims" / shop.stream).iterdir()
    aside = kept.rename(tmp_path / "aside")
    kept.mkdir()  # what is there cannot be read as a file
    monkeypatch.setattr("jobs.supervise.RETRY_BOUNDED_S", 0.0)
    with pytest.raises(ClaimStoreError, match="could not read an object in the claim store"):
        shop.run()
    assert shop.version() == 0
    kept.rmdir()
    aside.rename(kept)
    shop.run()
    assert shop.numbers() == [1]


def test_without_a_store_in_the_configuration_claimed_records_are_rejected_with_what_to_do(shop: Any) -> None:
    put(shop, 1)
    del shop.options["claims"]
    shop.run()
    assert [row["reason"] for row in shop.rejected()] == ["claim"]
    assert "set `claims: {url: …}`" in shop.rejected()[0]["detail"]
