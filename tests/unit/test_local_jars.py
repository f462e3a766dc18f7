"""A jar is used only if it is the locked one; downloads replace what is missing or damaged, or say why they cannot."""

from __future__ import annotations

import datetime
import hashlib
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pipeline.errors import StackError
from pipeline.local import jars, truststore
from pipeline.local.ivy import Coordinates, IvyError, pyspark_jars
from pipeline.local.java import find_java

A, B = Coordinates("org.a", "a", "1"), Coordinates("org.b", "b_2.13", "2.0")
CONTENT = {A: b"jar a", B: b"jar b"}


class Repository:
    """Stands in for Ivy."""

    def __init__(self) -> None:
        self.content = dict(CONTENT)
        self.asked: list[list[Coordinates]] = []
        self.failure: IvyError | None = None

    def retrieve(
        self, _java: Any, wanted: Sequence[Coordinates], into: Path, *, transitive: bool, on_line: Callable[[str], None]
    ) -> dict[Coordinates, Path]:
        assert not transitive
        self.asked.append(list(wanted))
        if self.failure:
            raise self.failure
        found = {one: into / one.file_name for one in wanted if one in self.content}
        for one, path in found.items():
            path.write_bytes(self.content[one])
            on_line(f"\t[SUCCESSFUL ] {one.org}#{one.name};{one.version}!{one.name}.jar (5ms)")
        return found


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    lock = [jars.LockedJar(one, hashlib.sha256(content).hexdigest()) for one, content in CONTENT.items()]
    made = Repository()
    monkeypatch.setattr(jars, "read_lock", lambda: {"broker": lock})
    monkeypatch.setattr(jars, "retrieve", made.retrieve)
    monkeypatch.setattr(jars, "find_java", lambda: None)
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    return made


def test_missing_jars_are_downloaded_once(repository: Repository) -> None:
    paths = jars.ensure("broker")
    assert [path.name for path in paths] == ["a-1.jar", "b_2.13-2.0.jar"]
    assert [path.read_bytes() for path in paths] == [b"jar a", b"jar b"]
    assert jars.ensure("broker") == paths
    assert repository.asked == [[A, B]]


def test_a_cached_jar_that_differs_is_replaced_when_it_can_be_downloaded(repository: Repository) -> None:
    damaged = jars.ensure("broker")[0]
    damaged.write_bytes(b"jar A")
    jars.ensure("broker")
    assert damaged.read_bytes() == b"jar a"
    assert repository.asked == [[A, B], [A]]


def test_a_cached_jar_that_differs_is_named_and_refused_when_there_is_no_network(repository: Repository) -> None:
    jars.ensure("broker")[0].write_bytes(b"jar A")
    repository.failure = IvyError(["", "java.net.ConnectException: refused"])
    with pytest.raises(StackError, match=r"a-1\.jar there differs from its locked SHA-256.*ConnectException.*network"):
        jars.ensure("broker")


def test_missing_jars_are_counted_when_there_is_no_network(repository: Repository) -> None:
    repository.failure = IvyError(["\tException in thread main"])
    with pytest.raises(StackError, match=r"2 of the jars .* not in the cache .* connect to the network"):
        jars.ensure("broker")


def test_a_download_that_is_not_the_locked_file_never_enters_the_cache(repository: Repository, tmp_path: Path) -> None:
    repository.content[B] = b"something else"
    with pytest.raises(StackError, match=r"b_2\.13-2\.0\.jar is not the locked file"):
        jars.ensure("broker")
    assert not (tmp_path / "cache" / "jars" / B.file_name).exists()


def test_a_download_without_a_file_is_an_error(repository: Repository) -> None:
    del repository.content[B]
    with pytest.raises(StackError, match="brought no file"):
        jars.ensure("broker")


def test_nothing_but_jars_stays_in_the_cache_after_a_download_that_failed(repository: Repository, tmp_path: Path) -> None:
    repository.content[B] = b"something else"
    with pytest.raises(StackError):
        jars.ensure("broker")
    assert {path.name for path in (tmp_path / "cache" / "jars").iterdir()} == {".lock", "a-1.jar"}


def test_progress_is_reported_for_each_jar(repository: Repository) -> None:
    seen: list[tuple[int, int]] = []
    jars.ensure("broker", on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_a_cache_that_cannot_be_written_is_an_error(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(StackError, match="HEADRACE_CACHE"):
        jars.ensure("broker")


def test_an_unknown_group_is_an_error(repository: Repository) -> None:
    with pytest.raises(StackError, match="'flink'"):
        jars.ensure("flink")


@pytest.mark.parametrize("content", ["", "[]", '{"broker": [{"org": "a"}]}', '{"broker": [1]}'])
def test_a_damaged_lock_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    with pytest.raises(StackError, match="reinstall"):
        jars.read_lock(tmp_path / "lock")


def test_the_lock_names_each_jar_once_with_a_whole_hash_and_no_address() -> None:
    lock = jars.read_lock()
    assert set(lock) == {"broker", "spark", "s3"}
    names = [jar.coordinates.file_name for group in lock.values() for jar in group]
    assert len(names) == len(set(names))
    assert all(len(jar.sha256) == 64 for group in lock.values() for jar in group)
    assert "://" not in jars.LOCK_FILE.read_text()


@pytest.mark.parametrize("group", ["spark", "s3"])
def test_a_group_for_spark_repeats_nothing_that_pyspark_brings(group: str) -> None:
    brought = {path.name.rsplit("-", 1)[0] for path in pyspark_jars().glob("*.jar")}
    assert not brought & {jar.coordinates.name for jar in jars.read_lock()[group]}


def test_s3_is_of_the_version_of_pysparks_hadoop_and_comes_without_the_bundle_of_every_aws_service() -> None:
    versions = {jar.coordinates.name: jar.coordinates.version for jar in jars.read_lock()["s3"]}
    assert (pyspark_jars() / f"hadoop-client-api-{versions['hadoop-aws']}.jar").exists()
    assert "bundle" not in versions


def test_java_reads_the_truststore_made_of_the_networks_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "ca.pem"
    pem = _self_signed()
    bundle.write_bytes(b"a comment\n" + pem + b"-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    options = dict(option.removeprefix("-Djavax.net.ssl.").split("=") for option in truststore.java_trust_options(tmp_path))
    keytool = [find_java().home / "bin" / "keytool", "-list"]
    keytool += ["-keystore", options["trustStore"], "-storepass", options["trustStorePassword"]]
    said = subprocess.run(keytool, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.count("trustedCertEntry") == 1


def _self_signed() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Headrace test authority")])
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, end)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_no_option_is_passed_when_no_bundle_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    assert truststore.java_trust_options(tmp_path) == []


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_bundle_without_certificates_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(StackError, match="SSL_CERT_FILE"):
        truststore.java_trust_options(tmp_path)
