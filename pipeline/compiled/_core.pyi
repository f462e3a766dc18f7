from collections.abc import Callable, Sequence
from contextvars import ContextVar
from threading import Lock
from typing import Any

class Encoder:
    def __new__(cls, program: tuple[Any, ...], raw: bool) -> Encoder: ...
    def encode(self, key: str, id: str | None, timestamp_ms: int, value: Any, /) -> bytes | None: ...

class Entries:
    first_seq: int
    size_bytes: int
    @property
    def count(self) -> int: ...
    def add(self, relative_seq: int, body: bytes, /) -> None: ...
    def bodies(self, step: int = 1, /) -> list[bytes]: ...
    def content(self) -> Sequence[bytes]: ...
    def let_go(self) -> None: ...
    def seq_at(self, index: int, /) -> int: ...

class Room:
    next_seq: int
    full_seq: int
    free_bytes: int

class Putter:
    def __new__(
        cls,
        slow: Callable[..., Any],
        encoder: Encoder,
        room: Room,
        lanes: dict[str, Any],
        lane: type[Any],
        aggregate: type[Any],
        lock: Lock,
        receipt: type[Any],
        context: ContextVar[Any] | None,
        spanned: Callable[[], bool] | None,
        bytes_max: int,
        records_max: int,
        record_overhead_bytes: int,
    ) -> Putter: ...
    def __call__(self, value: Any, key: str, **options: Any) -> Any: ...
