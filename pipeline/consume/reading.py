"""Reading a stream as a member of a group: fetch → gate → unpack → drop repeats → checkpoint.

Messages in hand are told apart by partition (``tracks.py``); librdkafka fetches ahead. Not thread-safe: its consumer calls
it from one thread.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

from pipeline import metrics
from pipeline.consume.commits import Commits
from pipeline.consume.counters import Counters
from pipeline.consume.dedup import Windows
from pipeline.consume.gating import GATE_CHECK_S, Gating
from pipeline.consume.parts import Parts
from pipeline.consume.tracks import Item, Track
from pipeline.consume.unpack import Kind, Unpacked, Unpacker
from pipeline.consume.vitals import Sample, Vitals
from pipeline.errors import RegistryUnavailableError, RetryableError
from pipeline.kafka.group_reader import Fetched, OutOfRangeError
from pipeline.model.shards import Place
from pipeline.model.stamp import END_HEADER

log = logging.getLogger("headrace.consume")
RETRY_S = 0.5


class Reading:
    """See the module. ``next`` gives a message in hand; ``done`` says that the first records of it are handled.

    ``before_revoke(places)`` is called inside ``next`` before partitions go to another member: what is under way there has
    to come to rest.
    """

    def __init__(
        self,
        parts: Parts,
        group: str,
        unpacker: Unpacker,
        counters: Counters,
        *,
        start: str | int,
        protocol: str,
        on_trimmed: str,
        before_revoke: Callable[[set[Place]], None],
        dedup_window_ms: int | None = None,
        stuck_after_s: float = 60.0,
    ) -> None:
        self._vitals = Vitals(stuck_after_s, time.monotonic())
        self._parts = parts
        self._control = control = parts.control
        self._unpacker = unpacker
        self._counters = counters
        self._before_revoke = before_revoke
        self.tracks: dict[Place, Track] = {}
        self._paused: set[Place] = set()
        self._aside: dict[Place, float] = {}
        self._commits = Commits(parts.marks(group), counters)
        self._reader = parts.member(group, protocol, self._assigned, self._revoked)
        self._windows = Windows(parts, unpacker, dedup_window_ms) if dedup_window_ms else None
        self._gating = Gating(self._reader, control, self._commits, self._windows, counters, start, on_trimmed)
        self._reader.subscribe({place[0] for place in control.map.places})
        metrics.LIVE.watch(self.read_gauges)

    def read_gauges(self) -> list[metrics.Sample]:
        """For a scrape, on its thread: from what the client knows without asking."""
        tracks = list(self.tracks.values())
        lag = sum(self._reader.known_lag(track.place, track.position.offset) for track in tracks)
        newest_ms = max((track.newest_ms for track in tracks), default=0)
        behind_s = time.time() - newest_ms / 1000 if lag and newest_ms else 0.0
        return [
            (metrics.LAG_MESSAGES, self._counters.labels, lag),
            (metrics.BEHIND_SECONDS, self._counters.labels, max(0.0, behind_s)),
            (metrics.GATED_SHARDS, self._counters.labels, len(self._gating.waiting)),
        ]

    def problems(self, handler_s: float) -> list[str]:
        """What keeps it from getting on; none while all is well. From any thread."""
        now = time.monotonic()
        gated_s = {place: now - since for place, since in dict(self._gating.waiting).items()}
        return self._vitals.problems(now, handler_s, gated_s)

    # -- messages ------------------------------------------------------------------------------------------------------

    def next(self, timeout_s: float) -> Item | None:
        """The next message that has records to handle, or is BAD; None if none came in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            for track in self._gating.start():
                self.tracks[track.place] = track
            patience_s = self._take_up()
            fetched = self._poll(max(0.0, min(patience_s, deadline - time.monotonic())))
            track_of = self.tracks.get(fetched.place) if fetched is not None else None
            if fetched is not None and track_of is not None:
                item = self._take(fetched, track_of)
                if item is not None:
                    return item
            if time.monotonic() >= deadline:
                return None

    def done(self, item: Item, records: int) -> None:
        """The first ``records`` of a message in hand are handled. Nothing happens where its partition was taken away: whoever
        has it now reads it again."""
        item.done = max(item.done, records)
        if item.track.live:
            self._settle(item.track)

    def put_back(self, track: Track) -> None:
        """Give what is in hand of a partition, and is not done, again at once."""
        if track.live and track.items:
            self._reader.seek(track.place, track.put_back())

    def hold(self, hold: bool) -> None:
        """Poll on without taking messages (the group sees a live member), or go on."""
        if hold and not self._paused:
            self._paused = set(self.tracks)
            self._reader.pause(self._paused)
        elif not hold and self._paused:
            self._reader.resume((self._paused & self.tracks.keys()) - self._aside.keys())
            self._paused = set()

    def idle(self) -> None:
        """Serve the group without taking a message; ``hold`` before."""
        self._poll(0.0)

    def commit(self) -> None:
        """Commit every position that moved. Raises BrokerUnavailableError: nothing is lost, some records come again."""
        try:
            self._commits.commit(self._reader, self.tracks.values())
        except RetryableError:
            self._counters.commit_failed()
            raise

    def close(self) -> None:
        """Commit and leave the group."""
        try:
            self.commit()
        except RetryableError as error:
            log.warning("no commit before leaving the group: the last records come again (%s)", error)
        try:
            self._reader.close()
        finally:
            self._commits.close()

    # -- one message -----------------------------------------------------------------------------------------------------

    def _poll(self, timeout_s: float) -> Fetched | None:
        now = time.monotonic()
        if self._vitals.due(now):
            tracks = list(self.tracks.values())
            at = {one.place: one.position for one in tracks}
            lags = {place: self._reader.known_lag(place, position.offset) for place, position in at.items()}
            self._vitals.sample(now, {p: Sample(position.offset, position.index, lags[p]) for p, position in at.items()})
        try:
            return self._reader.poll(timeout_s)
        except OutOfRangeError as error:
            track = self.tracks.get(error.place)
            if track is not None:
                low, _ = self._reader.bounds(track.place)
                self._gating.trimmed(track.place, track.position.offset, low)
                self._reader.seek(track.place, low)
            return None

    def _take(self, fetched: Fetched, track: Track) -> Item | None:
        """A message in hand, if there is something to handle in it."""
        unpacked = self._judge(fetched, track)
        if unpacked is None:
            return None
        if unpacked.kind is not Kind.END:
            self._counters.judged(unpacked)
            at = track.position
            if at.offset == fetched.offset and at.index:
                unpacked.skip_below(at.index)
        item = track.take(unpacked)
        if not item.finished:
            return item
        self._settle(track)
        return None

    def _judge(self, fetched: Fetched, track: Track) -> Unpacked | None:
        """What to do with a message; None if it has to wait for its schema, or if its partition was taken away while a
        reshard was waited for."""
        while True:
            try:
                unpacked = self._unpacker.unpack(fetched, track.judged)
                if unpacked.kind is Kind.END:
                    self._ask_for_the_outcome(fetched)
                elif self._windows is not None:
                    self._windows.drop(unpacked, track)
                return unpacked
            except RegistryUnavailableError as error:
                self._put_aside(fetched, error)
                return None
            except RetryableError as error:
                log.warning("%s[%d] waits at %d: %s", *fetched.place, fetched.offset, error)
                time.sleep(RETRY_S)
                self.hold(True)
                self._reader.poll(0)
                self.hold(False)
                if not track.live:
                    return None

    def _put_aside(self, fetched: Fetched, error: RegistryUnavailableError) -> None:
        """A message whose schema is not known yet: its partition waits, in order; the others go on."""
        log.warning("%s[%d] waits at %d: %s", *fetched.place, fetched.offset, error)
        self._reader.pause([fetched.place])
        self._reader.seek(fetched.place, fetched.offset)
        self._aside[fetched.place] = time.monotonic() + RETRY_S

    def _take_up(self) -> float:
        """Go on with partitions that waited long enough; returns for how long a poll may wait."""
        now = time.monotonic()
        for place in [place for place, due in self._aside.items() if now >= due]:
            del self._aside[place]
            if place not in self._paused:
                self._reader.resume([place])
        return min(self._gating.patience_s, RETRY_S) if self._aside else self._gating.patience_s

    def _settle(self, track: Track) -> None:
        """Move a partition's position past what is handled. Passing a seal is committed at once, and may open a gate."""
        sealed = False
        for item in track.settle():
            unpacked = item.unpacked
            if unpacked.kind is Kind.END:
                seals = {shard.seal for shard in self._control.map.at_place(track.place)}
                sealed |= unpacked.fetched.offset in seals
            elif unpacked.columns is not None:
                self._counters.handled(item.total)
        if sealed:
            self._commits.commit(self._reader, [track])
            self._gating.hurry()

    def _ask_for_the_outcome(self, fetched: Fetched) -> None:
        """Only COMMIT makes a seal: an END is asked of the control log, and waited for or brought about."""
        try:
            reshard = str(json.loads(fetched.header(END_HEADER) or b"")["reshard"])
        except (ValueError, KeyError, TypeError):
            reshard = ""
        if reshard in self._control.barrier().pending:
            time.sleep(GATE_CHECK_S)  # its resharder is most likely at work
            if reshard in self._control.barrier().pending:
                self._parts.finish_pending()
            if reshard in self._control.barrier().pending:
                raise RetryableError(f"reshard {reshard} is still pending")

    # -- assignment --------------------------------------------------------------------------------------------------------

    def _assigned(self, places: list[Place]) -> None:
        """Called inside poll. Every new partition is gated until the next look at the gate."""
        if places:
            self._counters.assigned()
            self._gating.add(places)

    def _revoked(self, places: list[Place], lost: bool) -> None:
        """Called inside poll: the last chance to commit, unless the partitions are lost already."""
        leaving = set(places)
        self._before_revoke(leaving)
        tracks = [self.tracks.pop(place) for place in leaving & self.tracks.keys()]
        try:
            for track in tracks:
                track.settle()
            if not lost:
                self._commits.commit(self._reader, tracks)
        except RetryableError as error:
            log.warning("no commit before %d partitions went to others: their last records come again (%s)", len(leaving), error)
        finally:
            for track in tracks:
                track.live = False
            for place in leaving:
                self._aside.pop(place, None)
                self._commits.forget(place)
                self._gating.remove(place)
