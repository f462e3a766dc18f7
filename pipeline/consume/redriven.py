"""The redrive header: what a record that comes back from the dead letters says of its first life (DESIGN.md §5)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pipeline.model.record import FirstLife, OrderToken
from pipeline.model.stamp import REDRIVE_HEADER, REDRIVE_PRODUCER

HEADER_BYTES_MAX = 4_096
_LONG_MAX = (1 << 63) - 1
Headers = Sequence[tuple[str, bytes | None]]
_NONE: Mapping[int, FirstLife] = {}


def first_lives(producer: str, headers: Sequence[Headers] | None) -> Mapping[int, FirstLife]:
    """The first lives of the redriven records of an aggregate, by index. A header that is not ours is ignored, and so is one
    that somebody else than a redrive put: a record read from one stream and put into another, say.

    Tables read it by the same rules (jobs/redriven.py)."""
    if headers is None or not producer.startswith(REDRIVE_PRODUCER) or not any(headers):
        return _NONE
    found: dict[int, FirstLife] = {}
    for index, of_record in enumerate(headers):
        for name, content in of_record:
            if name == REDRIVE_HEADER:
                if (life := first_life(content)) is not None:
                    found[index] = life
                break
    return found


def redrive_header(life: FirstLife, dead_offset: int) -> bytes:
    """The header's value. ``dead_offset`` is the letter's, for people who look."""
    order = life.order
    about = {"order": [order.generation, order.offset, order.index], "producer": life.producer, "seq": life.seq}
    place = {} if life.place is None else {"from": [life.place[0], life.place[1]]}
    return json.dumps(about | place | {"dead": dead_offset}, separators=(",", ":")).encode()


def first_life(content: bytes | None) -> FirstLife | None:
    """What a header's value tells; None where it is not one of ours."""
    if not content or len(content) > HEADER_BYTES_MAX:
        return None
    try:
        about = json.loads(content)
        generation, offset, index = about["order"]
        producer, seq, place = about["producer"], about["seq"], _place(about.get("from"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not isinstance(producer, str) or not all(map(_is_number, (generation, offset, index))) or not _is_number(seq, -1):
        return None
    return FirstLife(OrderToken(generation, offset, index), producer, seq, place)


def _place(told: object) -> tuple[str, int] | None:
    if not isinstance(told, list) or len(told) != 2 or not isinstance(told[0], str) or not _is_number(told[1]):
        return None
    return told[0], told[1]


def _is_number(value: object, low: int = 0) -> bool:
    return type(value) is int and low <= value <= _LONG_MAX
