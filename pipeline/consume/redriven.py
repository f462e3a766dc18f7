"""The redrive header: what a record that comes back from the dead letters says of its first life (DESIGN.md §5)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pipeline.model.record import FirstLife, OrderToken
from pipeline.model.stamp import REDRIVE_HEADER

HEADER_BYTES_MAX = 4_096
Headers = Sequence[tuple[str, bytes | None]]
_NONE: Mapping[int, FirstLife] = {}


def first_lives(headers: Sequence[Headers] | None) -> Mapping[int, FirstLife]:
    """The first lives of the redriven records of an aggregate, by index. A header that is not ours is ignored."""
    if headers is None or not any(headers):
        return _NONE
    found: dict[int, FirstLife] = {}
    for index, of_record in enumerate(headers):
        for name, content in of_record:
            if name == REDRIVE_HEADER and (life := _life(content)) is not None:
                found[index] = life
    return found


def redrive_header(life: FirstLife, dead_offset: int) -> bytes:
    """The header's value. ``dead_offset`` is the letter's, for people who look."""
    order = life.order
    about = {"order": [order.generation, order.offset, order.index], "producer": life.producer, "seq": life.seq}
    return json.dumps(about | {"dead": dead_offset}, separators=(",", ":")).encode()


def _life(content: bytes | None) -> FirstLife | None:
    if not content or len(content) > HEADER_BYTES_MAX:
        return None
    try:
        about = json.loads(content)
        generation, offset, index = about["order"]
        return FirstLife(OrderToken(int(generation), int(offset), int(index)), str(about["producer"]), int(about["seq"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
