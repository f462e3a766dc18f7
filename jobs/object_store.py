"""A warehouse on S3, through Hadoop's s3a: its settings, and what its errors mean.

Where and who comes from the environment variables that every AWS tool reads (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL_S3), or from Spark's own ``spark.hadoop.fs.s3a.*``, which win. No secret passes
through here: s3a reads the keys itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError

from pipeline.errors import HeadraceError, RetryableError, TableError

SCHEME = "s3a://"
FILE_SYSTEM = "org.apache.hadoop.fs.s3a.S3AFileSystem"
CHECKPOINTS = "org.apache.spark.internal.io.cloud.AbortableStreamBasedCheckpointFileManager"

# What s3a or its SDK says; whether the same may succeed later; what to do. The first that is found counts.
_CAUSES = (
    ("SignatureDoesNotMatch", False, "the secret key is not this access key's: correct AWS_SECRET_ACCESS_KEY"),
    ("InvalidAccessKeyId", False, "the access key is not known there: correct AWS_ACCESS_KEY_ID"),
    ("InvalidToken|ExpiredToken|InvalidClientTokenId", False, "the session token is not valid, or no longer: renew it"),
    (
        "NoAuthWithAWSException|NoAwsCredentialsException|Unable to load credentials",
        False,
        "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role",
    ),
    ("UnknownStoreException|NoSuchBucket", False, "there is no such bucket: create it, or correct `warehouse:`"),
    (
        "AccessDeniedException: s3a:|Status Code: 403",
        False,
        "access is denied: the keys have to allow s3:ListBucket, and s3:GetObject, s3:PutObject, s3:DeleteObject in it",
    ),
    (
        "SdkClientException|AWSClientIOException|AWSStatus5\\d\\dException|AWSServiceThrottledException|Status Code: 5\\d\\d",
        True,
        "the store does not answer: is it up, and AWS_ENDPOINT_URL_S3 (fs.s3a.endpoint) its address?",
    ),
)


def is_object_store(path: str) -> bool:
    """Whether a warehouse, or a path in one, lies on S3."""
    return path.startswith(SCHEME)


def settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Spark settings for a warehouse on S3, from the environment. They hold no secret."""
    found = {
        # A checkpoint file appears whole or not at all: its upload is completed or aborted. The default writes and renames,
        # and a rename on S3 is a copy that a crash cuts in two.
        "spark.sql.streaming.checkpointFileManagerClass": CHECKPOINTS,
        # By default a wrong address shows after many minutes; the supervisor tries micro-batches again anyway.
        "spark.hadoop.fs.s3a.attempts.maximum": "3",
        "spark.hadoop.fs.s3a.retry.limit": "3",
        "spark.hadoop.fs.s3a.connection.establish.timeout": "5s",
        # State files go up like all others: the SDK's asynchronous client on Spark's Netty 4.2 was seen to take the
        # "100 Continue" before an upload's answer for the answer.
        "spark.hadoop.fs.s3a.optimized.copy.from.local.enabled": "false",
    }
    if endpoint := environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL"):
        found["spark.hadoop.fs.s3a.endpoint"] = endpoint
        found["spark.hadoop.fs.s3a.path.style.access"] = "true"  # a store of one's own has no host name for each bucket
    if region := environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        found["spark.hadoop.fs.s3a.endpoint.region"] = region
    return found


def explain(text: str, path: str = "") -> HeadraceError | None:
    """What an error about a path on S3 means; None for any other error.

    ``text`` is the JVM's and may name keys; the answer names the bucket alone. A RetryableError where the same may succeed
    later, else a TableError.
    """
    found = re.search(r"s3a://([A-Za-z0-9._-]+)", path or text)
    if found is None:
        return None
    for sign, may_pass, what in _CAUSES:
        if re.search(sign, text):
            message = f"{SCHEME}{found[1]}: {what}"
            return RetryableError(message) if may_pass else TableError(message)
    return None


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Within, an error of the JVM about a path on S3 is raised as what it means. All others pass as they are."""
    try:
        yield
    except Py4JJavaError as error:
        meant = explain(str(error), path) if is_object_store(path) else None
        if meant is None:
            raise
        raise meant from None
