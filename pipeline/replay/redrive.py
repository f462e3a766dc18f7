"""Redrive: dead letters back into their stream, each at most once, also after a crash in the middle.

    1. a run is written to `<stream>.redriven`: what it takes, up to where;
    2. its letters are put in the order of the dead-letter topic, by a producer named after the run, whose sequences are the
       letters' offsets;
    3. once the stream has acknowledged them, each letter is written down as redriven; at the end, the run as ended.

A crash between 2 and 3 leaves an open run. Whoever redrives next goes on with it first: the same producer puts the same
sequences again, and readers drop those that arrived, exactly, by their marks. Two at once are the same producer's two
incarnations: the newer fences the older. A redriven record keeps its dedup id and its first order token in a header.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.consume.redriven import redrive_header
from pipeline.deadletter.log import DeadLetterLog, Kept, Run
from pipeline.errors import RecordError
from pipeline.model.stamp import REDRIVE_HEADER, REDRIVE_PRODUCER
from pipeline.produce.producer import Producer
from pipeline.replay.pace import Pace
from pipeline.replay.revive import CannotRevive, Revived, Reviver
from pipeline.replay.where import Where, parse_where
from pipeline.reshard.control_log import ControlLog

log = logging.getLogger("headrace.redrive")
INDEX_BITS = 20  # of a sequence: more records than a message holds
FLUSH_RECORDS = 500
FLUSH_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Outcome:
    """Counts of letters. ``resumed`` are among the ``redriven``: of a run that had not ended."""

    matched: int = 0
    redriven: int = 0
    resumed: int = 0
    already: int = 0
    cannot: int = 0


class Redrive:
    """Redrives of one stream. Not thread-safe; ``close`` it."""

    def __init__(self, config: Config, stream: str) -> None:
        self._config = config
        self.stream = config.stream(stream)
        self.log = DeadLetterLog(config.connection, self.stream)
        with ControlLog(config.connection, self.stream) as control:
            self.reviver = Reviver(config.connection, self.stream, control.barrier())

    def run(self, where: str | None = None, *, rate: float | None = None, dry_run: bool = False) -> Outcome:
        """Redrive the letters that match, ``rate`` records a second at most. ``dry_run`` counts, and does nothing. A redrive
        that did not end is ended first. Raises ConfigError for a ``where`` that is not understood."""
        wanted = parse_where(where)
        outcome = Outcome()
        before = self.log.redriven()
        if dry_run:
            for kept in self.log.letters():
                self._match(kept, wanted, before.done, outcome)
            return outcome
        for run in before.open:
            log.info("going on with redrive %s, which did not end", run.id)
            resumed = Outcome()
            self._go(run, before.done, resumed, rate)
            outcome.resumed += resumed.redriven
            outcome.redriven += resumed.redriven
        run = Run(uuid.uuid4().hex, where or "", self.log.end())
        self.log.begin(run)
        self._go(run, before.done, outcome, rate)
        return outcome

    def matching(self, where: str | None) -> list[tuple[Kept, bool]]:
        """The letters that match, and whether each was redriven."""
        wanted = parse_where(where)
        done = self.log.redriven().done
        return [(kept, kept.offset in done) for kept in self.log.letters() if wanted(self._about(kept, wanted))]

    def close(self) -> None:
        self.log.close()

    def __enter__(self) -> Redrive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _go(self, run: Run, done: set[int], outcome: Outcome, rate: float | None) -> None:
        wanted = parse_where(run.where)
        pace = Pace(rate)
        waiting: list[int] = []
        with Producer(self.stream.name, config=self._config, name=REDRIVE_PRODUCER + run.id) as producer:

            def settle() -> None:
                producer.flush(FLUSH_TIMEOUT_S)
                for offset in waiting:
                    self.log.mark(run, offset)
                    done.add(offset)
                outcome.redriven += len(waiting)
                waiting.clear()

            for kept in self.log.letters(run.end):
                put = 0
                for index, record in enumerate(self._match(kept, wanted, done, outcome)):
                    pace.step()
                    try:
                        self._put(producer, kept, index, record)
                        put += 1
                    except RecordError as error:
                        log.warning("record %d of letter %d cannot be put: %s", index, kept.offset, error)
                        outcome.cannot += 1
                if put:
                    waiting.append(kept.offset)
                if len(waiting) >= FLUSH_RECORDS:
                    settle()
            settle()
        self.log.finish(run)

    def _match(self, kept: Kept, wanted: Where, done: set[int], outcome: Outcome) -> list[Revived]:
        """The records to put of a letter; none where it does not match, was redriven, or cannot be decoded."""
        if not wanted(self._about(kept, wanted)):
            return []
        outcome.matched += 1
        if kept.offset in done:
            outcome.already += 1
            return []
        try:
            return list(self.reviver.records(kept))
        except CannotRevive as error:
            log.info("letter %d cannot be decoded: %s", kept.offset, error)
            outcome.cannot += 1
            return []

    def _about(self, kept: Kept, wanted: Where) -> dict[str, object]:
        about = kept.about()
        if wanted.asks_for_values:
            try:
                about["value"] = self.reviver.records(kept)[0].value
            except (*CannotRevive, IndexError):
                about["value"] = None
        return about

    def _put(self, producer: Producer, kept: Kept, index: int, record: Revived) -> None:
        headers = [*record.headers, (REDRIVE_HEADER, redrive_header(record.life, kept.offset))]
        producer.put(
            record.value, record.key, id=record.id, headers=headers, position=kept.offset << INDEX_BITS | index
        )
