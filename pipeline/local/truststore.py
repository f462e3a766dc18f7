"""Hands the certificate authorities of this machine's network to Java, which reads no SSL_CERT_FILE."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

from pipeline.errors import StackError

# Not a secret: a truststore holds public certificates, and Java insists on a password.
_PASSWORD = "headrace"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def authorities_file() -> Path | None:
    """The bundle that SSL_CERT_FILE or REQUESTS_CA_BUNDLE names; None when neither is set."""
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        if value := os.environ.get(variable):
            return Path(value)
    return None


def java_trust_options(folder: Path) -> list[str]:
    """The Java options that make it trust what this machine trusts; writes a truststore into ``folder``. [] when none is set."""
    bundle = authorities_file()
    if bundle is None:
        return []
    try:
        content = bundle.read_bytes()
    except OSError as error:
        raise StackError(
            f"cannot read the certificates in {bundle}: {error.strerror or error}; "
            "correct or unset SSL_CERT_FILE and REQUESTS_CA_BUNDLE"
        ) from error
    store = folder / "trust.p12"
    store.write_bytes(_truststore(content, bundle))
    return [
        f"-Djavax.net.ssl.trustStore={store}",
        "-Djavax.net.ssl.trustStoreType=PKCS12",
        f"-Djavax.net.ssl.trustStorePassword={_PASSWORD}",
    ]


def _truststore(content: bytes, bundle: Path) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    trusted: list[pkcs12.PKCS12Certificate] = []
    for number, pem in enumerate(_PEM.findall(content)):
        # Bundles carry the odd root that breaks the rules; OpenSSL passes over it too.
        with warnings.catch_warnings(action="ignore"):
            try:
                certificate = x509.load_pem_x509_certificate(pem)
            except ValueError:
                continue
        trusted.append(pkcs12.PKCS12Certificate(certificate, f"authority-{number}".encode()))
    if not trusted:
        raise StackError(f"{bundle} holds no certificate; correct or unset SSL_CERT_FILE and REQUESTS_CA_BUNDLE")
    return pkcs12.serialize_java_truststore(trusted, BestAvailableEncryption(_PASSWORD.encode()))
