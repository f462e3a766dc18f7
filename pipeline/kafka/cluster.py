"""Who answers at a bootstrap address: the cluster's own answer to a describe-cluster request."""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from pipeline.errors import BrokerUnavailableError


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a cluster says of itself. ``brokers`` are the ids of those that serve now (a fenced one is not among them)."""

    cluster_id: str
    brokers: frozenset[int]


def describe(bootstrap: str, timeout_s: float) -> Cluster:
    """Ask the cluster at ``bootstrap`` ("HOST:PORT", plaintext) who it is.

    Raises BrokerUnavailableError when nothing that speaks Kafka answers within ``timeout_s``. Thread-safe.
    """
    # log_level 0: librdkafka would else print each refused connection to standard error; the caller says it in one sentence.
    settings = {"bootstrap.servers": bootstrap, "client.id": "headrace-local", "log_level": 0, "error_cb": _ignore}
    # Named, for it must outlive its future: a client that is collected cancels what it was asked.
    client = AdminClient(settings)
    try:
        described = client.describe_cluster(request_timeout=timeout_s).result(timeout=timeout_s + 1)
    except (KafkaException, TimeoutError) as error:
        raise BrokerUnavailableError(
            f"no Kafka broker answered at {bootstrap} within {timeout_s:g} s: see `headrace status`, or check the address"
        ) from error
    if not described.cluster_id:
        raise BrokerUnavailableError(f"the broker at {bootstrap} does not say which cluster it belongs to: try again in a moment")
    return Cluster(str(described.cluster_id), frozenset(node.id for node in described.nodes))


def cluster_id(bootstrap: str, timeout_s: float) -> str:
    """The id of the cluster at ``bootstrap``. Raises BrokerUnavailableError; see describe."""
    return describe(bootstrap, timeout_s).cluster_id


def _ignore(_error: object) -> None:
    """Connection errors come out of the request itself."""
