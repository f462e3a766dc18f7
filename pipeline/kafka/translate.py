"""Kafka's errors as ours: the type says how to react (pipeline/errors.py)."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from pipeline.errors import BrokerUnavailableError, HeadraceError, StopError, UnknownStreamError

_UNKNOWN_TOPIC = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_ID,
}
_REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError.INVALID_CONFIG,
    KafkaError.POLICY_VIOLATION,
}


def translate(error: KafkaException | KafkaError, doing: str, bootstrap: str = "") -> HeadraceError:
    """The error to raise for Kafka's. ``doing`` completes "could not …"; brokers are named, settings never."""
    kafka_error = error.args[0] if isinstance(error, KafkaException) else error
    where = f" at {bootstrap}" if bootstrap else ""
    if not isinstance(kafka_error, KafkaError):
        return BrokerUnavailableError(f"could not {doing}{where}: {kafka_error}")
    code, text = kafka_error.code(), kafka_error.str()
    if code in _UNKNOWN_TOPIC:
        return UnknownStreamError(f"could not {doing}{where}: the topic does not exist (or was deleted)")
    if code in _REFUSED:
        return StopError(f"could not {doing}{where}: {text}: check the profile's kafka settings and the cluster's permissions")
    return BrokerUnavailableError(f"could not {doing}{where}: {text}: is the broker up? (`headrace status`)")


def is_unknown_topic(error: KafkaError) -> bool:
    return error.code() in _UNKNOWN_TOPIC


def is_refusal(error: KafkaError) -> bool:
    """Whether trying again cannot help before a person acted."""
    return error.code() in _REFUSED
