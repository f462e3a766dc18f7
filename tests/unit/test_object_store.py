"""A warehouse on S3: settings from the environment, and errors of the store as sentences without keys."""

from __future__ import annotations

import pytest

from jobs import object_store
from pipeline.config import Config
from pipeline.errors import RetryableError, TableError

KEY, SECRET = "AKIAEXAMPLEKEY", "example/secret+key"
BAD_SIGNATURE = (
    "java.nio.file.AccessDeniedException: s3a://lake/house: listObjects on s3a://lake/house: "
    "software.amazon.awssdk.services.s3.model.S3Exception: The request signature we calculated does not match the signature "
    f"you provided. (Service: S3, Status Code: 403, Request ID: 1) {KEY} {SECRET}:SignatureDoesNotMatch"
)


def test_settings_name_the_store_and_never_a_key() -> None:
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    found = object_store.settings({"AWS_ENDPOINT_URL_S3": "http://store:9000", "AWS_REGION": "eu-1"} | keys)
    assert found["spark.hadoop.fs.s3a.endpoint"] == "http://store:9000"
    assert found["spark.hadoop.fs.s3a.path.style.access"] == "true"
    assert found["spark.hadoop.fs.s3a.endpoint.region"] == "eu-1"
    assert not [value for value in found.values() if KEY in value or SECRET in value]
    assert not {"endpoint", "path.style.access"} & {key.removeprefix("spark.hadoop.fs.s3a.") for key in object_store.settings({})}


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (BAD_SIGNATURE, TableError, "correct AWS_SECRET_ACCESS_KEY"),
        ("AccessDeniedException: s3a://lake/x: null (Service: S3, Status Code: 403)", TableError, "access is denied"),
        ("UnknownStoreException: `s3a://lake/': The bucket does not exist: NoSuchBucket", TableError, "no such bucket"),
        ("AWSClientIOException: on s3a://lake/x: SdkClientException: Unable to load credentials", TableError, "no credentials"),
        ("AWSClientIOException: on s3a://lake/x: SdkClientException: Connection refused", RetryableError, "does not answer"),
        ("AWSStatus500Exception: PUT on s3a://lake/x: Status Code: 503", RetryableError, "does not answer"),
    ],
)
def test_an_error_of_the_store_is_a_sentence_of_the_right_kind(text: str, kind: type, said: str) -> None:
    found = object_store.explain(text)
    assert type(found) is kind
    assert str(found).startswith("s3a://lake: ")
    assert said in str(found)
    assert KEY not in str(found)
    assert SECRET not in str(found)


def test_errors_about_other_things_are_left_alone() -> None:
    assert object_store.explain("java.nio.file.AccessDeniedException: /lake/x") is None
    assert object_store.explain("a query over s3a://lake/x: org.apache.kafka.common.errors.TimeoutException") is None


@pytest.mark.parametrize(
    ("warehouse", "said"),
    [
        ("s3://lake/house", "expected s3a://lake/house"),
        (f"s3a://{KEY}:example@lake/house", "expected s3a://bucket/folder"),
        ("s3a:///house", "expected s3a://bucket/folder"),
    ],
)
def test_a_warehouse_that_cannot_be_used_is_refused_without_its_keys(warehouse: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        Config.model_validate({"warehouse": warehouse})
    assert KEY not in refused.value.errors(include_input=False)[0]["msg"]


def test_a_warehouse_in_a_bucket_or_a_folder_is_taken() -> None:
    for warehouse in ("s3a://lake/house", "hdfs://name/house", "house"):
        assert Config.model_validate({"warehouse": warehouse}).warehouse == warehouse
