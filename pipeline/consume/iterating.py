"""The loops over a consumer: by record, by chunk, by column. What was handled is said in each loop's own way (see
``consumer.py``); what is not goes back. A commit that is waited for serves the group: what is left of a message whose
partition went to another member by it (no longer ``live``) is for that one to handle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.model.record import Record

if TYPE_CHECKING:
    from pipeline.consume.consumer import Consumer

WAIT_S = 1.0


def records(consumer: Consumer) -> Iterator[Record]:
    """See ``Consumer.__iter__``."""
    consumer._let_go()
    monotonic = time.monotonic
    while not consumer._stop.is_set():
        item = consumer._next(WAIT_S)
        if item is None:
            continue
        handled = 0
        found = item.unpacked.records
        try:
            for handled, record in enumerate(found):
                if monotonic() >= consumer._commit_at:
                    consumer._reading.done(item, handled)
                    consumer._maybe_commit()
                if consumer._stop.is_set() or not item.track.live:
                    break
                yield record
            else:
                handled = len(found)
        finally:
            consumer._reading.done(item, handled)
            if handled < len(found):
                consumer._reading.put_back(item.track)


def chunks(consumer: Consumer, records_max: int | None) -> Iterator[list[Record]]:
    """See ``Consumer.chunks``."""
    consumer._let_go()
    while not consumer._stop.is_set():
        item = consumer._next(WAIT_S)
        if item is None:
            continue
        found = item.unpacked.records
        step = records_max or len(found)
        try:
            for at in range(0, len(found), step):
                yield found[at : at + step]
                consumer._reading.done(item, min(at + step, len(found)))
                consumer._maybe_commit()
                if consumer._stop.is_set() or not item.track.live:
                    break
        finally:
            if not item.finished:
                consumer._reading.put_back(item.track)


def batches(consumer: Consumer) -> Iterator[pa.RecordBatch]:
    """See ``Consumer.arrow``."""
    consumer._let_go()
    consumer._arrow.check()
    consumer._unpacker.with_values = False
    try:
        while not consumer._stop.is_set():
            item = consumer._next(WAIT_S)
            if item is None:
                continue
            try:
                yield consumer._arrow.batch(item.unpacked)
                consumer._reading.done(item, item.total)
            finally:
                if not item.finished:
                    consumer._reading.put_back(item.track)
    finally:
        consumer._unpacker.with_values = True
