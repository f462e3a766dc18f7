"""The encoder that is read, not generated: it defines what fits a schema, and says where and why a value does not.

The generated encoder (``generate.py``) handles what is common and leaves the rest, errors included, to this one. Where
fastavro's rules are loose, these are strict, because a loose rule loses data in silence: no unknown fields, no missing
field without a default, no bool for an int, no number out of range, no bytes for an array.
"""

from __future__ import annotations

import array
import enum
import numbers
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pipeline.errors import SchemaMismatchError
from pipeline.schema.avro_types import (
    INT_MAX,
    INT_MIN,
    LONG_MAX,
    LONG_MIN,
    RECURSION_MAX,
    Array,
    AvroType,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    type_name,
)
from pipeline.schema.field_defaults import default_value
from pipeline.schema.logical import Convert, converter
from pipeline.schema.models import plain
from pipeline.schema.varint import zigzag

_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")
_NAME_CHARACTERS_MAX = 100


def interpret(avro: AvroType, value: Any, depth: int = 0) -> bytes:
    """The Avro bytes of ``value``. ``depth`` is the number of recursive records around it.

    Raises SchemaMismatchError with the path of the field and the reason.
    """
    parts: list[bytes] = []
    try:
        _write(avro, value, "", depth, _Out(parts.append, {}))
    except RecursionError:
        raise SchemaMismatchError("", "the value is nested too deep") from None
    return b"".join(parts)


def whole_number(value: Any) -> int:
    """An int from what counts as one (also numpy's). Raises TypeError for bool and all else."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    raise TypeError(f"expected int, found {found(value)}")


def real_number(value: Any) -> float:
    """A float from what counts as one. Raises TypeError for bool, Decimal, strings; ValueError where it has no float."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError("expected a number, found one too large for a double") from None
    raise TypeError(f"expected a number, found {found(value)}")


def pack_float(value: float) -> bytes:
    """The four bytes of a float. Raises ValueError for a finite number beyond 32 bits (it would become infinite)."""
    try:
        return _FLOAT.pack(value)
    except OverflowError:
        raise ValueError("expected float, found a number too large for 32 bits") from None


def found(value: Any) -> str:
    """The type of a value as a message names it."""
    return "null" if value is None else type(value).__name__


class _Out:
    """Where bytes go, and what is known of which value fits which branch.

    Without that memory, nested unions of records would be tried again at every level: twice the time per level.
    The value is kept with the answer, so that its id stays its own.
    """

    __slots__ = ("append", "fits")

    def __init__(self, append: Callable[[bytes], Any], fits: dict[tuple[int, int, int], tuple[Any, bool]]) -> None:
        self.append, self.fits = append, fits


def _write(avro: AvroType, value: Any, path: str, depth: int, out: _Out) -> None:
    if isinstance(avro, Record):
        _record(avro, value, path, depth, out)
    elif isinstance(avro, Union):
        _union(avro, value, path, depth, out)
    elif isinstance(avro, Array):
        _array(avro, value, path, depth, out)
    elif isinstance(avro, Map):
        _map(avro, value, path, depth, out)
    else:
        try:
            out.append(_leaf(avro, value))
        except (TypeError, ValueError, OverflowError) as error:
            raise SchemaMismatchError(path, str(error)) from None


def _record(avro: Record, value: Any, path: str, depth: int, out: _Out) -> None:
    value = _fields(value)
    if not isinstance(value, Mapping):
        raise SchemaMismatchError(path, f"expected record {avro.name}, found {found(value)}")
    depth += avro.recursive
    if depth > RECURSION_MAX:
        raise SchemaMismatchError(path, f"more than {RECURSION_MAX} records of recursive types are nested inside each other")
    prefix = f"{path}." if path else ""
    names = {one.name for one in avro.fields}
    for key in value:
        if key not in names:
            shown = key[:_NAME_CHARACTERS_MAX] if isinstance(key, str) else f"({found(key)})"
            raise SchemaMismatchError(prefix + shown, "no such field in the schema")
    for one in avro.fields:
        if one.name in value:
            item = value[one.name]
        elif one.has_default:
            item = default_value(one)
        else:
            raise SchemaMismatchError(prefix + one.name, "missing, and the schema has no default for it")
        _write(one.type, item, prefix + one.name, depth, out)


def _array(avro: Array, value: Any, path: str, depth: int, out: _Out) -> None:
    if not isinstance(value, Sequence | array.array) or isinstance(value, str | bytes | bytearray | memoryview):
        raise SchemaMismatchError(path, f"expected array, found {found(value)}")
    if len(value):
        out.append(zigzag(len(value)))
        for index, item in enumerate(value):
            _write(avro.items, item, f"{path}[{index}]", depth, out)
    out.append(b"\x00")


def _map(avro: Map, value: Any, path: str, depth: int, out: _Out) -> None:
    if not isinstance(value, Mapping):
        raise SchemaMismatchError(path, f"expected map, found {found(value)}")
    if len(value):
        out.append(zigzag(len(value)))
        # A key is content: the path shows its place only.
        for index, (key, item) in enumerate(value.items()):
            try:
                out.append(_text(key))
            except (TypeError, ValueError) as error:
                raise SchemaMismatchError(f"{path}[{index}]", f"the key of a map: {error}") from None
            _write(avro.values, item, f"{path}[{index}]", depth, out)
    out.append(b"\x00")


def _fields(value: Any) -> Any:
    """An instance of a pydantic model or a dataclass stands for its fields."""
    return value if isinstance(value, Mapping) or (fields := plain(value)) is None else fields


def _union(avro: Union, value: Any, path: str, depth: int, out: _Out) -> None:
    index, value = choose(avro, _fields(value), path, depth, out)
    out.append(zigzag(index))
    _write(avro.branches[index], value, path, depth, out)


def choose(avro: Union, value: Any, path: str, depth: int, out: _Out) -> tuple[int, Any]:
    """Which branch takes a value, and the value without its hint. The rules are fastavro's.

    A pair (name, value) names the branch. Else the first branch that fits, with two exceptions: among records the one
    with the most of the value's fields, and ``double`` before ``float``.
    """
    names = [type_name(branch) for branch in avro.branches]
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and value[0] in names:
        return names.index(value[0]), value[1]
    if len(names) == 2 and (null := avro.null_index) >= 0:
        return (null if value is None else 1 - null), value
    best, most = -1, -1
    for index, branch in enumerate(avro.branches):
        if best >= 0 and names[best] == "float":
            if names[index] == "double":
                return index, value
        elif _fits(branch, value, depth, out):
            if not isinstance(branch, Record):
                best = index
                if names[index] != "float":
                    break
            elif (fields := sum(one.name in value for one in branch.fields)) > most:
                best, most = index, fields
    if best < 0:
        raise _no_branch(avro, value, path, depth, out)
    return best, value


def _fits(avro: AvroType, value: Any, depth: int, out: _Out) -> bool:
    known = out.fits.get((id(avro), id(value), depth))
    if known is not None:
        return known[1]
    try:
        _write(avro, value, "", depth, _Out(_ignore, out.fits))
        fits = True
    except SchemaMismatchError:
        fits = False
    out.fits[id(avro), id(value), depth] = value, fits
    return fits


def _ignore(_: bytes) -> None:
    pass


def _no_branch(avro: Union, value: Any, path: str, depth: int, out: _Out) -> SchemaMismatchError:
    """The error of the only branch that the value can have meant, if there is one: it names the field inside."""
    alike = [branch for branch in avro.branches if _alike(branch, value)]
    if len(alike) == 1:
        try:
            _write(alike[0], value, path, depth, _Out(_ignore, out.fits))
        except SchemaMismatchError as error:
            return error
    return SchemaMismatchError(path, f"expected {' or '.join(map(type_name, avro.branches))}, found {found(value)}")


def _alike(avro: AvroType, value: Any) -> bool:
    if isinstance(avro, Record | Map):
        return isinstance(value, Mapping)
    if isinstance(avro, Array):
        return isinstance(value, list | tuple)
    if isinstance(avro, Enum):
        return isinstance(value, str)
    if isinstance(avro, Primitive) and avro.name in ("int", "long"):
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return False


def _leaf(avro: Primitive | Fixed | Enum | Array | Map, value: Any) -> bytes:
    if isinstance(avro, Enum):
        if isinstance(value, enum.Enum):
            value = value.value
        if not isinstance(value, str):
            raise TypeError(f"expected enum {avro.name}, found {found(value)}")
        if value not in avro.symbols:
            raise ValueError(f"expected one of the symbols of the enum {avro.name}, found another string")
        return zigzag(avro.symbols.index(value))
    assert isinstance(avro, Primitive | Fixed)
    if avro.logical is not None and (convert := _converter(avro)) is not None:
        try:
            value = convert(value)
        except (OverflowError, ArithmeticError, AttributeError):
            raise ValueError(f"expected {avro.logical.name}, found one that cannot be expressed") from None
    if isinstance(avro, Fixed):
        if not isinstance(value, bytes | bytearray):
            raise TypeError(f"expected {avro.size_bytes} bytes (fixed {avro.name}), found {found(value)}")
        if len(value) != avro.size_bytes:
            raise ValueError(f"expected {avro.size_bytes} bytes (fixed {avro.name}), found {len(value)}")
        return bytes(value)
    return _PRIMITIVES[avro.name](value)


@lru_cache(maxsize=4096)
def _converter(avro: Primitive | Fixed) -> Convert | None:
    return converter(avro)


def _null(value: Any) -> bytes:
    if value is not None:
        raise TypeError(f"expected null, found {found(value)}")
    return b""


def _boolean(value: Any) -> bytes:
    if value is not True and value is not False:
        raise TypeError(f"expected boolean, found {found(value)}")
    return b"\x01" if value else b"\x00"


def _integer(name: str, low: int, high: int) -> Callable[[Any], bytes]:
    def write(value: Any) -> bytes:
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise TypeError(f"expected {name}, found {found(value)}")
        number = int(value)
        if not low <= number <= high:
            raise ValueError(f"expected {name}, found a number that does not fit into {high.bit_length() + 1} bits")
        return zigzag(number)

    return write


def _floating(name: str, pack: Callable[[float], bytes]) -> Callable[[Any], bytes]:
    def write(value: Any) -> bytes:
        try:
            return pack(real_number(value))
        except TypeError:
            raise TypeError(f"expected {name}, found {found(value)}") from None

    return write


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"expected bytes, found {found(value)}")
    raw = bytes(value)
    return zigzag(len(raw)) + raw


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"expected string, found {found(value)}")
    try:
        raw = str.encode(value)
    except UnicodeEncodeError:
        raise ValueError("expected string, found one with a lone surrogate, which UTF-8 cannot hold") from None
    return zigzag(len(raw)) + raw


_PRIMITIVES: dict[str, Callable[[Any], bytes]] = {
    "null": _null,
    "boolean": _boolean,
    "int": _integer("int", INT_MIN, INT_MAX),
    "long": _integer("long", LONG_MIN, LONG_MAX),
    "float": _floating("float", pack_float),
    "double": _floating("double", _DOUBLE.pack),
    "bytes": _bytes,
    "string": _text,
}
