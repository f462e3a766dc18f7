"""Kafka's settings as Spark's source wants them: ours are librdkafka's names, Spark's client is the Java one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config import Connection
from pipeline.errors import ConfigError

_SAME = (
    "bootstrap.servers",
    "security.protocol",
    "client.dns.lookup",
    "client.rack",
    "fetch.max.bytes",
    "receive.buffer.bytes",
    "send.buffer.bytes",
    "request.timeout.ms",
    "reconnect.backoff.ms",
    "reconnect.backoff.max.ms",
    "sasl.kerberos.service.name",
    "ssl.endpoint.identification.algorithm",
    "check.crcs",
)

FETCH_WAIT_MS = "20"
"""Spark's consumers outlive a micro-batch with one fetch under way, which the next one has to sit out. A micro-batch asks
only for records that are there, so nothing is gained by waiting for more: Kafka's 500 ms cost a second per micro-batch."""


def kafka_options(connection: Connection) -> dict[str, str]:
    """Options for ``spark.readStream.format("kafka")``. Never log them: they hold secrets.

    Raises ConfigError for a security setting that has no counterpart, rather than connect without it.
    """
    settings = connection.kafka_settings()
    options = {f"kafka.{key}": settings[key] for key in _SAME if key in settings}
    options |= _sasl(settings) | _tls(settings)
    for key in settings:
        if key.startswith(("sasl.", "ssl.")) and key not in _TRANSLATED and key not in _SAME:
            raise ConfigError(f"the kafka setting {key} is not known to the Spark jobs: use PEM files, or user and password")
    # read_uncommitted (the default) on purpose: an open foreign transaction would hide the log behind it.
    return {"kafka.fetch.max.wait.ms": FETCH_WAIT_MS} | options


_TRANSLATED = {
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
}


def _sasl(settings: Mapping[str, Any]) -> dict[str, str]:
    mechanism = settings.get("sasl.mechanisms") or settings.get("sasl.mechanism")
    if mechanism is None:
        return {}
    options = {"kafka.sasl.mechanism": mechanism}
    if "sasl.username" in settings:
        module = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
        name, password = _quoted(settings["sasl.username"]), _quoted(settings.get("sasl.password", ""))
        options["kafka.sasl.jaas.config"] = (
            f"org.apache.kafka.common.security.{module} required username={name} password={password};"
        )
    return options


def _tls(settings: Mapping[str, Any]) -> dict[str, str]:
    options: dict[str, str] = {}
    if "ssl.ca.location" in settings:
        options |= {"kafka.ssl.truststore.type": "PEM", "kafka.ssl.truststore.location": settings["ssl.ca.location"]}
    if "ssl.key.location" in settings:
        # The Java client takes one PEM file that holds the key and then its certificates.
        if settings.get("ssl.certificate.location") not in (None, settings["ssl.key.location"]):
            raise ConfigError("the Spark jobs need key and certificate in one PEM file: join them, name it in both")
        options |= {"kafka.ssl.keystore.type": "PEM", "kafka.ssl.keystore.location": settings["ssl.key.location"]}
        if "ssl.key.password" in settings:
            options["kafka.ssl.key.password"] = settings["ssl.key.password"]
    return options


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
