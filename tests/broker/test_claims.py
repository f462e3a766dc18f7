"""Claim check: records above the message limit, by a folder and by S3 (moto's server), and what becomes of damaged objects."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import Consumer, Producer
from pipeline.claims.store import ClaimStore, Reference
from pipeline.config import Claims
from pipeline.errors import ClaimStoreError, DecodeError, RecordTooLargeError
from pipeline.model.stamp import CLAIM_HEADER
from tests.broker.test_producer import order, raw_messages

Make = Callable[..., Any]
BIG = "x" * 3_000_000


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """A bucket on a real S3 server of this process."""
    import boto3
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="claims")
        try:
            yield f"s3://claims/records?region=us-east-1&scheme=http&endpoint_override={host}:{port}"
        finally:
            server.stop()


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_a_big_record_comes_out_as_it_went_in_between_its_neighbours(
    order_config: Make, tmp_path: Path, request: pytest.FixtureRequest, where: str
) -> None:
    url = f"file://{tmp_path}/claims" if where == "folder" else request.getfixturevalue("s3_url")
    config, stream = order_config(shards=1, claims={"url": url})
    with Producer(stream, config=config) as producer:
        receipts = [
            producer.put(order(1), key="lamp"),
            producer.put(order(2, item=BIG), key="lamp", id="big", headers=[("trace", b"\x01")]),
            producer.put(order(3), key="lamp"),
        ]
        producer.flush(30)
        assert [r.result(0).seq for r in receipts] == [0, 1, 2]
    with Consumer(stream, group="g", config=config) as consumer:
        records = [record for _, record in zip(range(3), consumer, strict=False)]
    assert [r.value["number"] for r in records] == [1, 2, 3]
    assert (records[1].value["item"], records[1].id, list(records[1].headers)) == (BIG, "big", [("trace", b"\x01")])
    (_, claimed, _) = raw_messages(config.connection.bootstrap, stream, 1)
    assert CLAIM_HEADER in dict(claimed.headers())
    assert len(claimed.value()) < 300


def test_a_record_above_the_claims_limit_is_refused(order_config: Make, tmp_path: Path) -> None:
    config, stream = order_config(shards=1, claims={"url": f"file://{tmp_path}/claims", "bytes_max": 2_000_000})
    with Producer(stream, config=config) as producer, pytest.raises(RecordTooLargeError, match="2,000,000"):
        producer.put(order(1, item=BIG), key="lamp")
    assert not (tmp_path / "claims").exists()


def test_a_missing_object_is_a_dead_letter_and_the_next_record_is_read(order_config: Make, tmp_path: Path) -> None:
    config, stream = order_config(shards=1, claims={"url": f"file://{tmp_path}/claims"})
    with Producer(stream, config=config) as producer:
        producer.put(order(1, item=BIG), key="lamp")
        producer.put(order(2), key="lamp")
    shutil.rmtree(tmp_path / "claims")
    with Consumer(stream, group="g", config=config) as consumer:
        assert next(iter(consumer)).value["number"] == 2
    (letter,) = raw_messages(config.connection.bootstrap, f"{stream}.dead", 1)
    assert b"was it deleted?" in dict(letter.headers())["headrace-dead"]


def test_a_changed_object_and_a_foreign_reference_are_refused(tmp_path: Path) -> None:
    store = ClaimStore(Claims(url=f"file://{tmp_path}"))
    reference = store.put("s", b"content")
    assert store.get(Reference.decode(reference.encode())) == b"content"
    (tmp_path / reference.name).write_bytes(b"contend")
    with pytest.raises(DecodeError, match="was changed"):
        store.get(reference)
    (tmp_path / "secret").write_bytes(b"secret")
    leads_out = b'{"name": "s/../secret", "sha256": "", "bytes": 6}'
    for data in (leads_out, b'{"name": "/etc/passwd"}', b"{", b"[]", None, b"x" * 9_999):
        with pytest.raises(DecodeError):
            Reference.decode(data)


def test_a_store_that_cannot_be_written_is_an_error_that_says_so(order_config: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    config, stream = order_config(shards=1, claims={"url": f"file://{tmp_path}/file"})
    with Producer(stream, config=config) as producer:
        with pytest.raises(ClaimStoreError, match="could not write"):
            producer.put(order(1, item=BIG), key="lamp")
        assert producer.put(order(2), key="lamp").result(30).seq == 0
