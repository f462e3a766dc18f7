"""Which partitions a bronze query reads, and that nothing is missing there (DESIGN.md §3 rule 2, §6).

A partition once assigned stays: Spark takes one that is gone for lost data. New ones come in through the lineage gate.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from jobs.commits import Places
from pipeline.errors import StreamConflictError, TrimmedError
from pipeline.model.gate import readable_places
from pipeline.model.shards import Place, ShardMap

_EARLIEST = -2


def positions(places: Places) -> dict[Place, int]:
    """The same as a flat mapping."""
    return {(topic, partition): offset for topic, partitions in places.items() for partition, offset in partitions.items()}


def nested(flat: Mapping[Place, int]) -> Places:
    """The inverse of ``positions``."""
    out: Places = {}
    for (topic, partition), offset in sorted(flat.items()):
        out.setdefault(topic, {})[partition] = offset
    return out


def places_to_read(
    assigned: Iterable[Place], processed: Mapping[Place, int], shard_map: ShardMap, log_start: Mapping[Place, int]
) -> set[Place]:
    """Those in the Spark checkpoint's newest offset log, those that the table has rows of, and those whose gate is open now.

    ``processed`` has what is *committed to the table*: an offset that was only planned opens no gate.
    """
    return set(assigned) | set(processed) | readable_places(shard_map, processed, log_start)


def check_bounds(table: str, processed: Mapping[Place, int], bounds: Mapping[Place, tuple[int, int]]) -> None:
    """Raises TrimmedError or StreamConflictError where the log no longer fits what was read, before Spark finds out."""
    for (topic, partition), next_offset in sorted(processed.items()):
        first, end = bounds[topic, partition]
        if first > next_offset:
            raise TrimmedError(
                f"{table} has read {topic}/{partition} up to offset {next_offset}, but retention has removed everything below "
                f"{first}: {first - next_offset} offsets were never read. Restore them, or make the table anew to accept the loss"
            )
        if end < next_offset:
            raise StreamConflictError(
                f"{table} has read {topic}/{partition} up to offset {next_offset}, but it ends at {end}: the topic was "
                "recreated or truncated. Restore it, or make the table anew under another name"
            )


def assign_option(places: Iterable[Place]) -> str:
    """Spark's ``assign``: JSON of topic → partitions."""
    out: dict[str, list[int]] = {}
    for topic, partition in sorted(places):
        out.setdefault(topic, []).append(partition)
    return json.dumps(out)


def starting_option(places: Iterable[Place], processed: Mapping[Place, int]) -> str:
    """Spark's ``startingOffsets`` for a new Spark checkpoint: where the table stands, else the beginning. That is what makes
    a lost checkpoint harmless."""
    starts = nested({place: processed.get(place, _EARLIEST) for place in places})
    return json.dumps({topic: {str(partition): at for partition, at in ps.items()} for topic, ps in starts.items()})
