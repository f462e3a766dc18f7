"""What can be seen of a registry: /metrics in Prometheus' format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from pipeline.registry.store import SchemaStore

_ROUTES = frozenset({"", "schemas", "subjects", "config", "mode", "compatibility", "contexts", "metrics", "v1"})


def route_name(path: str) -> str:
    """The first part of a path: a label must not grow with the names of subjects."""
    first = path.split("/", 2)[1] if path.startswith("/") else path
    return first if first in _ROUTES else "other"


class RegistryMetrics:
    """Counters of one registry in a collector of their own. Safe from any thread."""

    def __init__(self, store: SchemaStore) -> None:
        self.store = store
        self.collector = CollectorRegistry()
        self._requests = Counter(
            "headrace_registry_requests", "Requests answered.", ["route", "method", "status"], registry=self.collector
        )
        self._seconds = Histogram(
            "headrace_registry_request_seconds",
            "Time from a request's first byte to its answer, in seconds.",
            ["route", "method"],
            registry=self.collector,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self._gauge("headrace_registry_ready", "1 once the topic was read to its end.", lambda: float(store.ready))
        for name in ("subjects", "versions", "ids"):
            self._gauge(f"headrace_registry_{name}", f"Number of {name}, deleted ones too.", self._counter_of(name))
        self._gauge("headrace_registry_records_applied", "Records of the topic applied.", lambda: float(store.records_applied))
        self._gauge("headrace_registry_unreadable_records", "Records skipped.", lambda: float(store.unreadable_records))
        topic, state = store.topic, store.state
        self._gauge("headrace_registry_id_conflicts", "Schemas left out: their id was taken.", lambda: float(state.conflicts))
        self._gauge("headrace_registry_turns_taken", "Times this registry took the turn.", lambda: float(topic.turns_taken))
        self._gauge("headrace_registry_turns_lost", "Writes made again: another came first.", lambda: float(topic.turns_lost))

    def _gauge(self, name: str, text: str, read: object) -> None:
        Gauge(name, text, registry=self.collector).set_function(read)  # type: ignore[arg-type]

    def _counter_of(self, name: str) -> object:
        return lambda: float(self.store.state.counts()[name])

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, method).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.collector)
