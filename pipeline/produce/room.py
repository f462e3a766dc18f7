"""What ``put`` moves for each record, as few numbers as can be. Owned by the producer's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.compiled import core

if TYPE_CHECKING:
    Room = core.Room
elif core is None:

    class Room:
        """``next_seq`` is what the next record gets. The room left is ``free_bytes``, and in records ``full_seq``, the sequence
        at which the buffer is full."""

        next_seq: int
        full_seq: int
        free_bytes: int

else:
    Room = core.Room
