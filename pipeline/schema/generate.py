"""Python source for the fast encoder of one schema.

The source handles values of the exact types that records mostly hold (dict, str, int, float, ...). Anything else raises
in there, and the caller turns to ``interpret``, which knows every rule and words the errors. So the source may give up at
any doubt, but must never write other bytes than ``interpret`` would.

No text of a user enters the source as it is: field names go in by ``repr``, all else as numbered names that stand for
objects. Each record, array, map and mixed union becomes one function, so the source's nesting does not grow with the
schema's.
"""

from __future__ import annotations

import datetime
import decimal
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.schema.avro_types import (
    RECURSION_MAX,
    Array,
    AvroType,
    Enum,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    walk,
)
from pipeline.schema.field_defaults import default_value
from pipeline.schema.interpret import interpret, pack_float, real_number, whole_number
from pipeline.schema.logical import INT_RANGES, converter
from pipeline.schema.models import plain
from pipeline.schema.varint import HIGH, INTS, LONGS, LOW, READY, zigzag


class GiveUpError(Exception):
    """Raised inside generated code: this value is left to ``interpret``."""


def give_up(*_: Any) -> Any:
    raise GiveUpError


def _as_dict(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    return dict(found) if (found := plain(value)) is not None else give_up()


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return list(value)
    raise GiveUpError


class Generator:
    """Collects the functions of one schema and the objects that they name."""

    def __init__(self, root: AvroType) -> None:
        self.names: dict[str, Any] = {
            "INT": INTS,
            "LONG": LONGS,
            "LOW": LOW,
            "HIGH": HIGH,
            "JOIN": b"".join,
            "NONE": b"",
            "ZERO": b"\x00",
            "ONE": b"\x01",
            "DOUBLE": struct.Struct("<d").pack,
            "FLOAT": pack_float,
            "whole": whole_number,
            "real": real_number,
            "give_up": give_up,
            "as_dict": _as_dict,
            "as_list": _as_list,
            "text": str.encode,
        }
        self.lines: list[str] = []
        self.functions: dict[AvroType, str] = {}
        # Only a schema with a recursive record pays for counting how deep a value is.
        deep = any(isinstance(avro, Record) and avro.recursive for avro in walk(root))
        self.parameter, self.argument = (", depth", ", depth") if deep else ("", "")
        self.counter = 0

    def compile(self, entry_point: str) -> Any:
        """Run the collected source; the object that it calls ``entry_point``."""
        code = compile("\n".join(self.lines) + "\n", "<encoder of a schema>", "exec")
        exec(code, self.names)  # noqa: S102 - our own source, see the module's docstring
        return self.names[entry_point]

    def fresh(self, letter: str) -> str:
        self.counter += 1
        return f"{letter}{self.counter}"

    def constant(self, value: Any) -> str:
        name = self.fresh("k")
        self.names[name] = value
        return name

    # -- a record's fields --------------------------------------------------------------------------------------------

    def check_record(self, record: Record, name: str) -> list[str]:
        """Lines after which ``name`` is a dict with as many keys as the record has fields (with defaults filled in)."""
        defaults = {one.name: default_value(one) for one in record.fields if one.has_default}
        fill = self.constant(_filler(defaults, len(record.fields)))
        lines = [f"if {name}.__class__ is not dict:", f"    {name} = as_dict({name})"]
        lines += [f"if len({name}) != {len(record.fields)}:", f"    {name} = {fill}({name})"]
        if record.recursive:
            lines += ["depth += 1", f"if depth > {RECURSION_MAX}:", "    give_up()"]
        return lines

    def record_parts(self, record: Record, name: str) -> list[str]:
        return [part for one in record.fields for part in self.parts(one.type, f"{name}[{one.name!r}]")]

    # -- expressions --------------------------------------------------------------------------------------------------

    def parts(self, avro: AvroType, source: str) -> list[str]:
        """Expressions, to be evaluated from left to right, whose bytes in a row are the value that ``source`` gives."""
        if isinstance(avro, Primitive):
            return self.primitive(avro, source)
        if isinstance(avro, Fixed):
            return self.fixed(avro, source)
        if isinstance(avro, Enum):
            symbols = self.constant({symbol: zigzag(index) for index, symbol in enumerate(avro.symbols)})
            return [f"{symbols}[{source}]"]
        if isinstance(avro, Union):
            return self.union(avro, source)
        return [f"{self.function(avro)}({source}{self.argument})"]

    def primitive(self, avro: Primitive, source: str) -> list[str]:
        value = self.fresh("v")
        if avro.name == "null":
            return [f"(NONE if ({source}) is None else give_up())"]
        if avro.name == "boolean":
            return [f"(ONE if ({value} := {source}) is True else ZERO if {value} is False else give_up())"]
        if avro.name in ("int", "long"):
            table = avro.name.upper()
            if avro.logical is not None:
                low, high = INT_RANGES[avro.logical.name]
                convert = self.constant(converter(avro))
                check = f"({value} := {source}).__class__ is int and {low} <= {value} <= {high}"
                return [f"({self.number(avro.name, value)} if {check} else {table}[{convert}({value})])"]
            check = f"({value} := {source}).__class__ is int"
            return [f"({self.number(avro.name, value)} if {check} else {table}[whole({value})])"]
        if avro.name in ("float", "double"):
            return [f"{avro.name.upper()}({value} if ({value} := {source}).__class__ is float else real({value}))"]
        if avro.logical is not None:
            source = f"{self.constant(converter(avro))}({source})"
        if avro.name == "string":
            return [f"INT[len({value} := text({source}))]", value]
        return [f"INT[len({value} := {source})]", f"({value} if {value}.__class__ is bytes else give_up())"]

    def number(self, name: str, value: str) -> str:
        """The varint of an int. A long is often a time or an id, for which no table is ready."""
        if name == "int":
            return f"INT[{value}]"
        zigzag_name = self.fresh("z")
        large = f"LOW[({zigzag_name} := {value} << 1 ^ {value} >> 63) & 0x3FFF] + HIGH[{zigzag_name} >> 14]"
        return f"(LONG[{value}] if {-READY} <= {value} < {READY} else {large})"

    def fixed(self, avro: Fixed, source: str) -> list[str]:
        value = self.fresh("v")
        if (convert := converter(avro)) is not None:
            source = f"{self.constant(convert)}({source})"
        check = f"({value} := {source}).__class__ is bytes and len({value}) == {avro.size_bytes}"
        return [f"({value} if {check} else give_up())"]

    def union(self, avro: Union, source: str) -> list[str]:
        null = avro.null_index
        if len(avro.branches) != 2 or null < 0:
            return [f"{self.function(avro)}({source}{self.argument})"]
        value = self.fresh("v")
        other = avro.branches[1 - null]
        index = self.constant(zigzag(1 - null))
        absent = self.constant(zigzag(null))
        present = row([index, *self.parts(other, value)])
        # The pair (name, value) that chooses a branch is a tuple, which no branch takes here, except an array.
        pair = f"give_up() if {value}.__class__ is tuple else " if isinstance(other, Array) else ""
        return [f"({absent} if ({value} := {source}) is None else {pair}{present})"]

    # -- functions ----------------------------------------------------------------------------------------------------

    def function(self, avro: Record | Array | Map | Union) -> str:
        """The name of the function that encodes a value of this type."""
        if avro not in self.functions:
            name = self.functions[avro] = self.fresh("f")
            if isinstance(avro, Record):
                body = [*self.check_record(avro, "value"), f"return {row(self.record_parts(avro, 'value'))}"]
            elif isinstance(avro, Union):
                body = self.mixed_union(avro)
            else:
                body = self.collection(avro)
            self.lines += [f"def {name}(value{self.parameter}):", *indent(body)]
        return self.functions[avro]

    def collection(self, avro: Array | Map) -> list[str]:
        if isinstance(avro, Array):
            kind, loop, inner = "list", "for item in value:", self.parts(avro.items, "item")
        else:
            kind, loop = "dict", "for key, item in value.items():"
            inner = self.primitive(Primitive("string"), "key") + self.parts(avro.values, "item")
        return [
            f"if value.__class__ is not {kind}:",
            f"    value = as_{kind}(value)",
            "if not value:",
            "    return ZERO",
            "out = [INT[len(value)]]",
            loop,
            f"    out += ({', '.join(inner)},)",
            "out.append(ZERO)",
            "return JOIN(out)",
        ]

    def mixed_union(self, avro: Union) -> list[str]:
        """By the class of the value where that decides the branch; the rest is ``interpret``'s."""
        lines = ["kind = value.__class__"]
        for python_type, index in decided(avro):
            branch = row([self.constant(zigzag(index)), *self.parts(avro.branches[index], "value")])
            lines += [f"if kind is {self.constant(python_type)}:", f"    return {branch}"]

        def rest(value: Any, depth: int = 0) -> bytes:
            return interpret(avro, value, depth)

        return [*lines, f"return {self.constant(rest)}(value{self.argument})"]


def row(parts: Sequence[str]) -> str:
    """One expression for the bytes of several in a row."""
    if not parts:
        return "NONE"
    return " + ".join(parts) if len(parts) <= 3 else f"JOIN(({', '.join(parts)}))"


def indent(lines: Sequence[str]) -> list[str]:
    return ["    " + line for line in lines]


def decided(avro: Union) -> list[tuple[type, int]]:
    """The Python types that leave no choice between the branches, most frequent first, with the branch of each.

    The order within a union counts as in ``interpret.choose``: a first branch that takes every value of a type wins. A
    value that does not fit it after all (out of range) raises, and ``interpret`` looks at the other branches.
    """
    found: list[tuple[type, int]] = []
    for python_type in _DECIDABLE:
        takers = [index for index, branch in enumerate(avro.branches) if python_type in _takes(branch)]
        first_wins = python_type is int and takers and _base(avro.branches[takers[0]]) in ("int", "long", "double")
        if len(takers) == 1 or first_wins:
            found.append((python_type, takers[0]))
        elif python_type is float and takers:
            doubles = [index for index in takers if _base(avro.branches[index]) == "double"]
            found.append((python_type, (doubles or takers)[0]))
    return found


_DECIDABLE: tuple[type, ...] = (
    *(type(None), str, int, float, dict, list, bool, bytes),
    *(datetime.datetime, datetime.date, datetime.time, decimal.Decimal, uuid.UUID),
)


def _base(avro: AvroType) -> str:
    return avro.name if isinstance(avro, Primitive) else ""


def _takes(avro: AvroType) -> tuple[type, ...]:
    """The exact Python types (of those that are decided on) that a branch may take."""
    if isinstance(avro, Record | Map):
        return (dict,)
    if isinstance(avro, Array):
        return (list,)
    if isinstance(avro, Enum):
        return (str,)
    if isinstance(avro, Union):
        return ()
    taken = _PLAIN["fixed" if isinstance(avro, Fixed) else avro.name]
    return taken + (_LOGICAL.get(avro.logical.name.removeprefix("local-").split("-")[0], ()) if avro.logical else ())


_PLAIN: Mapping[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "int": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "string": (str,),
    "bytes": (bytes,),
    "fixed": (bytes,),
}
_LOGICAL: Mapping[str, tuple[type, ...]] = {
    "timestamp": (datetime.datetime,),
    "date": (datetime.date, datetime.datetime),
    "time": (datetime.time,),
    "decimal": (decimal.Decimal,),
    "uuid": (uuid.UUID,),
}


def _filler(defaults: dict[str, Any], fields: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def fill(value: dict[str, Any]) -> dict[str, Any]:
        filled = {**defaults, **value}
        # As many keys as fields, and each field is then looked up by name: so no key is unknown.
        return filled if len(value) < fields == len(filled) else give_up()

    return fill
