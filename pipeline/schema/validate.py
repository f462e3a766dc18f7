"""A pass over bytes before fastavro decodes them, because fastavro is not safe on hostile ones.

What was seen of fastavro 1.13: it recurses in C without a bound (a recursive schema kills the process); it makes as many
items as a block's count says where items take no bytes (memory); it brings the bytes of a decimal of any length to a
Decimal, in time with the square of the length (400 kB: 16 s), and rounds what exceeds the precision; negative indices
of unions and enums count from the end; a varint may go on for ever and be cut to 64 bits; an ``int`` may hold more than
32 bits. All else it refuses in time with the body's length: sizes are checked against what is there.

Decimals are bounded where they are read (``bounded_decimal.py``) and recursion by the schema itself
(``bounded_recursion.py``), which costs nothing. So bytes of a schema without arrays of nothing are safe to decode as they
are, and the pass, which costs about a third of the decoding (``python -m bench --only decoding``), is spared unless it is
asked for, or has to say what is wrong. The pass is generated per schema, like the encoder. It does not look into strings:
wrong UTF-8 is refused by fastavro.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.errors import DecodeError
from pipeline.schema.avro_types import (
    DECIMAL_PRECISION_MAX,
    RECURSION_MAX,
    Array,
    AvroType,
    Enum,
    Fixed,
    Logical,
    Map,
    Primitive,
    Record,
    Union,
    walk,
)
from pipeline.schema.logical import decimal_bytes_max
from pipeline.schema.value_schema import ValueSchema


@dataclass(frozen=True, slots=True)
class Limits:
    """What one body may cost. Decoded, a body takes at most about 100 times its bytes.

    ``body_bytes_max``: bytes of the body (16 MiB; the largest message of a broker is rarely above 1 MiB).
    ``empty_items_max``: items of arrays that take no bytes each (nulls, empty records), in the whole body.
    """

    body_bytes_max: int = 16 * 1024 * 1024
    empty_items_max: int = 65_536


Validate = Callable[[bytes], None]


def validate(body: bytes, schema: ValueSchema, limits: Limits | None = None) -> None:
    """Raise DecodeError with the reason unless ``body`` is exactly one value of the schema within the limits."""
    _cached(schema, limits or Limits())(body)


def is_recursive(avro: AvroType) -> bool:
    """Whether a record inside it contains itself: fastavro follows it as deep as the bytes say."""
    return any(isinstance(each, Record) and each.recursive for each in walk(avro))


def has_items_without_bytes(avro: AvroType) -> bool:
    """Whether an array's items may take no bytes: fastavro makes as many of them as the bytes say."""
    sizes = _Sizes()
    return any(isinstance(each, Array) and sizes.least_bytes(each.items) == 0 for each in walk(avro))


def compile_validator(avro: AvroType, limits: Limits) -> Validate:
    """The pass for one type: a function that raises DecodeError or returns. Safe to call from many threads."""
    source = _Source()
    body = source.value(avro)
    lines = ["def run(b, end, depth, empty):", "    p = 0", *_indent(body), "    return p"]
    code = compile("\n".join([*source.lines, *lines]) + "\n", "<validation of a schema>", "exec")
    exec(code, source.names)  # noqa: S102 - names only as numbers; nothing of a schema's text is in the source
    run = source.names["run"]

    def check(body: bytes) -> None:
        end = len(body)
        if end > limits.body_bytes_max:
            raise DecodeError(f"the body has {end:,} bytes, the limit is {limits.body_bytes_max:,}")
        try:
            consumed = run(body, end, 0, [limits.empty_items_max])
        except IndexError:
            raise DecodeError(f"truncated: the value goes on after the {end:,} bytes of the body") from None
        except RecursionError:
            raise DecodeError("the value is nested too deep") from None
        if consumed != end:
            what = "truncated" if consumed > end else "trailing bytes"
            raise DecodeError(f"{what}: the value takes {consumed:,} bytes, the body has {end:,}")

    return check


@lru_cache(maxsize=256)
def _cached(schema: ValueSchema, limits: Limits) -> Validate:
    return compile_validator(schema.type, limits)


class _Sizes:
    """The fewest bytes that a value of a type takes; 1 for what is still being looked at (a record inside itself)."""

    def __init__(self) -> None:
        self.known: dict[AvroType, int] = {}

    def least_bytes(self, avro: AvroType) -> int:
        if avro not in self.known:
            self.known[avro] = 1
            self.known[avro] = self._least(avro)
        return self.known[avro]

    def _least(self, avro: AvroType) -> int:
        if isinstance(avro, Record):
            return sum(self.least_bytes(one.type) for one in avro.fields)
        if isinstance(avro, Union):
            return 1 + min(self.least_bytes(branch) for branch in avro.branches)
        if isinstance(avro, Fixed):
            return avro.size_bytes
        if isinstance(avro, Primitive):
            return {"null": 0, "float": 4, "double": 8}.get(avro.name, 1)
        return 1


class _Source:
    """Lines that move the position ``p`` over a value in ``b``; one function for each record, array, map and union.

    A read past the end raises IndexError. A string's length may carry ``p`` past the end: then the next read raises, or
    the final comparison of ``p`` with the end does.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {
            "skip": _skip_long,
            "skip_int": _skip_int,
            "read": _read_long,
            "bad": _bad,
            "enter": _enter,
            "take_empty": _take_empty,
            "check_decimal": _check_decimal,
        }
        self.functions: dict[AvroType, str] = {}
        self.sizes = _Sizes()

    def value(self, avro: AvroType) -> list[str]:
        if isinstance(avro, Primitive):
            return self.primitive(avro)
        if isinstance(avro, Fixed):
            return self.fixed(avro)
        if isinstance(avro, Enum):
            return ["n = b[p]", "p += 1", *_index("n", len(avro.symbols), "an enum")]
        if isinstance(avro, Union) and len(avro.branches) == 2 and avro.null_index >= 0:
            return self.optional(avro)
        return [f"p = {self.function(avro)}(b, p, end, depth, empty)"]

    def primitive(self, avro: Primitive) -> list[str]:
        if avro.logical is not None and avro.logical.name == "decimal":
            return [
                "n, p = read(b, p)",
                f"check_decimal(b, p, n, {decimal_bytes_max(avro.logical)}, {self.constant(avro.logical)})",
                "p += n",
            ]
        if avro.name in ("string", "bytes"):
            short = ["n = b[p]", "if n < 128:", "    if n & 1:", '        bad("a negative length")', "    p += (n >> 1) + 1"]
            return [*short, "else:", "    n, p = read(b, p)", "    if n < 0:", '        bad("a negative length")', "    p += n"]
        if avro.name in ("int", "long"):
            skip = "skip_int" if avro.name == "int" else "skip"
            return ["if b[p] < 128:", "    p += 1", "else:", f"    p = {skip}(b, p)"]
        if avro.name == "boolean":
            return ["if b[p] > 1:", '    bad("a boolean that is neither 0 nor 1")', "p += 1"]
        return {"null": ["pass"], "float": ["p += 4"], "double": ["p += 8"]}[avro.name]

    def fixed(self, avro: Fixed) -> list[str]:
        lines = [f"p += {avro.size_bytes}"]
        if avro.logical is not None and avro.logical.name == "decimal":
            lines.insert(0, f"check_decimal(b, p, {avro.size_bytes}, {avro.size_bytes}, {self.constant(avro.logical)})")
        return lines

    def optional(self, avro: Union) -> list[str]:
        null = avro.null_index
        present = _indent(self.value(avro.branches[1 - null]))
        absent = [f"elif n != {2 * null}:", '    bad("an index of a union out of range")']
        return ["n = b[p]", "p += 1", f"if n == {2 * (1 - null)}:", *present, *absent]

    def function(self, avro: AvroType) -> str:
        if avro not in self.functions:
            name = self.functions[avro] = f"f{len(self.functions)}"
            self.lines += [f"def {name}(b, p, end, depth, empty):", *_indent(self.body(avro)), "    return p"]
        return self.functions[avro]

    def body(self, avro: AvroType) -> list[str]:
        if isinstance(avro, Record):
            lines = ["depth = enter(depth)"] if avro.recursive else []
            return lines + [line for one in avro.fields for line in self.value(one.type)]
        if isinstance(avro, Union):
            lines = ["index = b[p]", "p += 1", *_index("index", len(avro.branches), "a union")]
            for number, branch in enumerate(avro.branches):
                lines += [f"{'elif' if number else 'if'} index == {2 * number}:", *_indent(self.value(branch))]
            return lines
        if isinstance(avro, Array):
            return self.blocks(self.value(avro.items), self.sizes.least_bytes(avro.items))
        assert isinstance(avro, Map)
        key = self.primitive(Primitive("string"))
        return self.blocks([*key, *self.value(avro.values)], 1 + self.sizes.least_bytes(avro.values))

    def blocks(self, item: list[str], least_bytes: int) -> list[str]:
        """Blocks of items until one of none. A negative count is followed by the block's size, which must be true."""
        enough = ["take_empty(empty, count)"]
        if least_bytes:
            enough = [f"if count * {least_bytes} > end - p:", '    bad("a count of more items than the body has bytes for")']
        return [
            "while True:",
            "    count = b[p]",
            "    if count < 128 and not count & 1:",
            "        count >>= 1",
            "        p += 1",
            "        stop = -1",
            "    else:",
            "        count, p = read(b, p)",
            "        stop = -1",
            "        if count < 0:",
            "            count = -count",
            "            n, p = read(b, p)",
            "            stop = p + n",
            "    if not count:",
            "        break",
            *_indent(enough),
            # Items without bytes are counted; there is nothing to look at.
            *(["    for _ in range(count):", *_indent(_indent(item))] if least_bytes else []),
            "    if stop >= 0 and stop != p:",
            '        bad("a block of another size than it says")',
        ]

    def constant(self, value: Any) -> str:
        name = f"k{len(self.names)}"
        self.names[name] = value
        return name


def _indent(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]


def _index(name: str, count: int, what: str) -> list[str]:
    """An index is one byte below 64 and two above; longer forms of a small one are refused."""
    lines = [f"if {name} >= 128:", f"    {name}, p = read(b, p - 1)", f"    {name} *= 2"] if count > 64 else []
    return [*lines, f"if {name} & 1 or not 0 <= {name} < {2 * count}:", f'    bad("an index of {what} out of range")']


def _bad(what: str) -> None:
    raise DecodeError(f"not a value of its schema: {what}")


def _enter(depth: int) -> int:
    if depth >= RECURSION_MAX:
        raise DecodeError(f"more than {RECURSION_MAX} records of recursive types are nested inside each other")
    return depth + 1


def _take_empty(left: list[int], count: int) -> None:
    left[0] -= count
    if left[0] < 0:
        raise DecodeError("more items without bytes than the limit allows")


def _skip_long(b: bytes, p: int) -> int:
    stop = p + 9
    while b[p] >= 128:
        if p == stop:
            _bad("a number of more than 64 bits")
        p += 1
    # Nine times seven bits: the tenth byte holds the last one.
    if p == stop and b[p] > 1:
        _bad("a number of more than 64 bits")
    return p + 1


def _skip_int(b: bytes, p: int) -> int:
    after = _skip_long(b, p)
    if after - p > 5 or (after - p == 5 and b[p + 4] > 15):
        _bad("an int of more than 32 bits")
    return after


def _read_long(b: bytes, p: int) -> tuple[int, int]:
    after = _skip_long(b, p)
    raw, shift = 0, 0
    for byte in b[p:after]:
        raw |= (byte & 0x7F) << shift
        shift += 7
    return (raw >> 1) ^ -(raw & 1), after


def _check_decimal(b: bytes, p: int, size_bytes: int, bytes_max: int, logical: Logical) -> None:
    if size_bytes < 0:
        _bad("a negative length")
    if size_bytes > bytes_max:
        _bad("a decimal of more bytes than its precision needs")
    limit = _POWERS[logical.precision]
    if not -limit < int.from_bytes(b[p : p + size_bytes], "big", signed=True) < limit:
        _bad("a decimal of more digits than its precision")


class _Powers(dict[int, int]):
    def __missing__(self, digits: int) -> int:
        assert digits <= DECIMAL_PRECISION_MAX
        power: int = 10**digits
        self[digits] = power
        return power


_POWERS = _Powers()
