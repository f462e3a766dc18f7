"""What a reader counts: its own statistics, and the metrics of its stream and group, whose label children are held."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import metrics
from pipeline.consume.unpack import Kind, Unpacked


@dataclass(slots=True)
class ReaderStats:
    """Counters since the reader started. ``trimmed`` counts offsets that retention removed unread and that the reader was
    told to pass over; ``duplicates_dropped`` counts records left out by their explicit dedup ids."""

    messages: int = 0
    records: int = 0
    bytes: int = 0
    repeats_dropped: int = 0
    duplicates_dropped: int = 0
    voids: int = 0
    bad: int = 0
    trimmed: int = 0
    retries: int = 0
    dead_letters: int = 0
    commits: int = 0
    rebalances: int = 0


class Counters:
    """One reader's. Moved per message, never per record."""

    def __init__(self, stream: str, group: str) -> None:
        self.stats = ReaderStats()
        self.labels = (stream, group)
        self._handled = metrics.RECORDS_HANDLED.labels(stream, group)
        self._bytes = metrics.READ_BYTES.labels(stream, group)
        self._repeats = metrics.REPEATS_DROPPED.labels(stream, group)
        self._duplicates = metrics.DUPLICATES_DROPPED.labels(stream, group)
        self._voids = metrics.VOIDS_SKIPPED.labels(stream, group)
        self._bad = metrics.BAD_MESSAGES.labels(stream, group)
        self._trimmed = metrics.TRIMMED.labels(stream, group)
        self._retries = metrics.RETRIES.labels(stream, group)
        self._commits = metrics.COMMITS.labels(stream, group)
        self._commit_failures = metrics.COMMIT_FAILURES.labels(stream, group)
        self._commit_seconds = metrics.COMMIT_SECONDS.labels(stream, group)
        self._rebalances = metrics.REBALANCES.labels(stream, group)
        self._gate_wait = metrics.GATE_WAIT_SECONDS.labels(stream, group)
        self._handler_seconds = metrics.HANDLER_SECONDS.labels(stream, group)

    def judged(self, unpacked: Unpacked) -> None:
        stats, kind = self.stats, unpacked.kind
        size = len(unpacked.fetched.value or b"")
        stats.messages += 1
        stats.bytes += size
        self._bytes.inc(size)
        if unpacked.repeats:
            stats.repeats_dropped += unpacked.repeats
            self._repeats.inc(unpacked.repeats)
        if unpacked.duplicates:
            stats.duplicates_dropped += unpacked.duplicates
            self._duplicates.inc(unpacked.duplicates)
        if kind is Kind.VOID:
            stats.voids += 1
            self._voids.inc()
        elif kind is Kind.BAD:
            stats.bad += 1
            self._bad.inc()

    def handled(self, records: int) -> None:
        """A message is handled whole."""
        self.stats.records += records
        self._handled.inc(records)

    def trimmed(self, offsets: int) -> None:
        self.stats.trimmed += offsets
        self._trimmed.inc(offsets)

    def retried(self) -> None:
        self.stats.retries += 1
        self._retries.inc()

    def buried(self) -> None:
        self.stats.dead_letters += 1  # the metric is moved where letters are written

    def committed(self, seconds: float) -> None:
        self.stats.commits += 1
        self._commits.inc()
        self._commit_seconds.observe(seconds)

    def commit_failed(self) -> None:
        self._commit_failures.inc()

    def assigned(self) -> None:
        self.stats.rebalances += 1
        self._rebalances.inc()

    def gate_waited(self, seconds: float) -> None:
        self._gate_wait.inc(seconds)

    def handler_took(self, seconds: float) -> None:
        self._handler_seconds.observe(seconds)
