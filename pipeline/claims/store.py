"""The file store of claims: a folder, S3, or anything that fsspec knows.

    claims: {url: "s3://bucket/prefix?region=eu-west-1"}     or file:///srv/claims

An object holds what would have been the message's value, whole. It is written before the message that refers to it, and
never changed or deleted here: a bucket's lifecycle rule does that, after the stream's retention. S3 is reached through
pyarrow, whose credentials come from the environment, and whose options (region, endpoint_override, scheme) stand in the URL.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from dataclasses import dataclass, replace
from typing import Any

import fsspec
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs

from pipeline.config import Claims
from pipeline.errors import ClaimStoreError, DecodeError
from pipeline.kafka.group_reader import Fetched
from pipeline.model.stamp import CLAIM_HEADER

REFERENCE_BYTES_MAX = 4_096
_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}/[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a message says of its object: a name below the store's URL, its SHA-256 and its size."""

    name: str
    sha256: str
    size_bytes: int

    def encode(self) -> bytes:
        return json.dumps({"name": self.name, "sha256": self.sha256, "bytes": self.size_bytes}).encode()

    @staticmethod
    def decode(data: bytes | None) -> Reference:
        """Raises DecodeError for what is no reference: names come from outside, and must not lead out of the store."""
        try:
            if data is None or len(data) > REFERENCE_BYTES_MAX:
                raise ValueError
            found = json.loads(data)
            reference = Reference(str(found["name"]), str(found["sha256"]), int(found["bytes"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DecodeError("the reference of a claim cannot be read") from None
        if not _NAME.fullmatch(reference.name) or reference.size_bytes < 0:
            raise DecodeError("the reference of a claim names no object of a claim store")
        return reference


class ClaimStore:
    """Thread-safe. Raises ClaimStoreError while the store does not answer."""

    def __init__(self, claims: Claims) -> None:
        self._url = claims.url.partition("?")[0]
        self._bytes_max = claims.bytes_max
        self._has_buckets = claims.url.startswith("s3://")  # which know no folders
        self._files, self._root = _open(claims.url)

    def put(self, stream: str, content: bytes) -> Reference:
        """Keep an object under a new name."""
        reference = Reference(f"{stream}/{uuid.uuid4().hex}", hashlib.sha256(content).hexdigest(), len(content))
        path = f"{self._root}/{reference.name}"
        try:
            if not self._has_buckets:
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self._files.open(path, "wb") as file:
                file.write(content)
        except OSError as error:
            raise self._unavailable("write", error) from error
        return reference

    def get(self, reference: Reference) -> bytes:
        """The object. Raises DecodeError where it is missing, of another size or changed: no try can bring it back."""
        if reference.size_bytes > self._bytes_max:
            raise DecodeError(f"a claim of {reference.size_bytes:,} bytes, the limit is {self._bytes_max:,} (claims: bytes_max)")
        try:
            with self._files.open(f"{self._root}/{reference.name}", "rb") as file:
                content = bytes(file.read(reference.size_bytes + 1))
        except FileNotFoundError:
            raise DecodeError(f"the object {reference.name} of a claim is not in {self._url}: was it deleted?") from None
        except OSError as error:
            raise self._unavailable("read", error) from error
        if len(content) != reference.size_bytes or hashlib.sha256(content).hexdigest() != reference.sha256:
            raise DecodeError(f"the object {reference.name} of a claim in {self._url} was changed: its checksum differs")
        return content

    def _unavailable(self, doing: str, error: OSError) -> ClaimStoreError:
        reason = " ".join(str(error).split())[:200]
        return ClaimStoreError(f"could not {doing} an object in the claim store {self._url}: {reason}: check its credentials")


def resolved(fetched: Fetched, store: ClaimStore | None) -> Fetched:
    """The message as it would have been without a claim check. Raises DecodeError and ClaimStoreError."""
    if fetched.header(CLAIM_HEADER) is None:
        return fetched
    if store is None:
        raise DecodeError("the record lies in a claim store, and the stream has none here: set `claims: {url: …}`")
    headers = [(name, content) for name, content in fetched.headers if name != CLAIM_HEADER]
    return replace(fetched, value=store.get(Reference.decode(fetched.value)), headers=headers)


def _open(url: str) -> tuple[Any, str]:
    if url.startswith("s3://"):
        files, root = fs.FileSystem.from_uri(url)
        return ArrowFSWrapper(files), root.rstrip("/")
    files, root = fsspec.url_to_fs(url)
    return files, root.rstrip("/")
