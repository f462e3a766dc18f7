"""Options of ``python -m pipeline.registry``: arguments, and environment for what should not stand on a command line."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ConfigError

USERS_ENV = "HEADRACE_REGISTRY_USERS"
TLS_PASSWORD_ENV = "HEADRACE_REGISTRY_TLS_PASSWORD"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Options:
    """Everything a registry is started with. Fields that hold secrets are not shown by ``repr``."""

    host: str
    port: int
    topic: str
    kafka: dict[str, str] = field(repr=False)
    users: dict[str, str] = field(repr=False)
    requests_max: int
    body_bytes_max: int
    timeout_s: float
    tls_certificate: str | None
    tls_key: str | None
    tls_clients: str | None
    tls_password: str | None = field(repr=False)


def parse(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Options:
    """Reads options. Raises ``ConfigError``; ``--help`` and unknown options exit as argparse does."""
    environ = os.environ if environ is None else environ
    given = _parser().parse_args(arguments)
    kafka = {"bootstrap.servers": given.bootstrap, "client.id": "headrace-registry"}
    for setting in given.kafka:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise ConfigError(f"--kafka takes NAME=VALUE, not {name!r}")
        kafka[name.strip()] = _expand(value, environ)
    if bool(given.tls_cert) != bool(given.tls_key):
        raise ConfigError("TLS needs both --tls-cert and --tls-key")
    for path in (given.tls_cert, given.tls_key, given.tls_clients):
        if path and not Path(path).is_file():
            raise ConfigError(f"{path}: no such file")
    return Options(
        host=given.host,
        port=given.port,
        topic=given.topic,
        kafka=kafka,
        users=_users(given.users_file, environ),
        requests_max=given.requests_max,
        body_bytes_max=given.body_bytes_max,
        timeout_s=given.timeout_s,
        tls_certificate=given.tls_cert,
        tls_key=given.tls_key,
        tls_clients=given.tls_clients,
        tls_password=environ.get(TLS_PASSWORD_ENV),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.registry",
        description="A schema registry with Confluent's REST API. Its state is the compacted topic; any number may share it.",
        epilog=f"{USERS_ENV} holds users as name:password,name:password; {TLS_PASSWORD_ENV} the password of the TLS key.",
    )
    parser.add_argument("--bootstrap", required=True, help="Kafka brokers, HOST:PORT[,HOST:PORT]")
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--topic", default="_schemas", help="topic that holds the schemas (default: %(default)s)")
    parser.add_argument("--kafka", action="append", default=[], metavar="NAME=VALUE",
                        help="a librdkafka setting; ${NAME} in the value is read from the environment")  # fmt: skip
    parser.add_argument("--users-file", metavar="FILE", help="lines name:password; turns basic auth on")
    parser.add_argument("--tls-cert", metavar="FILE", help="certificate chain (PEM); turns TLS on")
    parser.add_argument("--tls-key", metavar="FILE", help="private key of the certificate (PEM)")
    parser.add_argument("--tls-clients", metavar="FILE", help="only clients with a certificate of these authorities (PEM)")
    parser.add_argument("--requests-max", type=int, default=256, help="requests answered at once (default: %(default)s)")
    parser.add_argument("--body-bytes-max", type=int, default=1_000_000, help="size of a request (default: %(default)s)")
    parser.add_argument("--timeout-s", type=float, default=15.0, help="longest wait for the broker (default: %(default)s)")
    return parser


def _expand(value: str, environ: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[1] not in environ:
            raise ConfigError(f"the environment has no {match[1]}, which a Kafka setting asks for")
        return environ[match[1]]

    return _VARIABLE.sub(replace, value)


def _users(path: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    lines = [line for line in environ.get(USERS_ENV, "").split(",") if line.strip()]
    if path is not None:
        try:
            lines += [line for line in Path(path).read_text().splitlines() if line.strip() and not line.startswith("#")]
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        if not lines:
            raise ConfigError(f"{path} names no user: everybody would be let in")
    users = {}
    for line in lines:
        name, colon, password = line.strip().partition(":")
        if not colon or not name or not password:
            raise ConfigError("each user is written name:password (the line is not shown, it may hold a password)")
        users[name] = password
    return users
