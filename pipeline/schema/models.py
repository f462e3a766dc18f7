"""Python classes as schemas: from a pydantic model or a dataclass to an Avro record, and from decoded values back to it.

    bool, int, float, str, bytes    boolean, long, double, string, bytes
    datetime, date, time            timestamp-micros (with its time zone), date, time-micros
    UUID                            uuid
    Decimal                         decimal, with Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
    an Enum of strings, Literal     enum
    X | None, X | Y                 union; the default's type stands first
    list, tuple[X, ...], dict       array, map of strings
    another model or dataclass      record, also inside itself
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import re
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from pipeline.errors import DecodeError, SchemaError
from pipeline.schema.value_schema import ValueSchema, parse_schema

_ABSENT: Any = object()
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIMPLE: dict[Any, Any] = {
    type(None): "null",
    bool: "boolean",
    int: "long",
    float: "double",
    str: "string",
    bytes: "bytes",
    datetime.datetime: {"type": "long", "logicalType": "timestamp-micros"},
    datetime.date: {"type": "int", "logicalType": "date"},
    datetime.time: {"type": "long", "logicalType": "time-micros"},
    uuid.UUID: {"type": "string", "logicalType": "uuid"},
}
_LISTS = (list, tuple, Sequence)
_MAPS = (dict, Mapping)
PROBLEMS_MAX = 3


def schema_of(model: type[Any], namespace: str | None = None) -> ValueSchema:
    """The schema of a class. Raises SchemaError naming the field whose type has no place in Avro."""
    if not is_model(model):
        raise SchemaError(f"{model!r} is neither a pydantic model nor a dataclass")
    tree = _Writer(namespace).record(model)
    return parse_schema(tree, source=model.__name__)


def is_model(model: object) -> bool:
    """Whether this is a class that can stand for a schema."""
    return isinstance(model, type) and (issubclass(model, BaseModel) or dataclasses.is_dataclass(model))


def plain(value: Any) -> Mapping[str, Any] | None:
    """The fields of an instance of a model or a dataclass, as they are; None for anything else."""
    if isinstance(value, BaseModel):
        return value.__dict__
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    return None


def reader_of(model: type[Any]) -> Callable[[Any], Any]:
    """The function that makes instances of ``model`` from decoded values. It raises DecodeError, naming fields and what is
    wrong with them, never their content."""
    if not is_model(model):
        raise SchemaError(f"model={model!r} is neither a pydantic model nor a dataclass")
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(model)
    except PydanticUserError as error:
        raise SchemaError(f"model {model.__name__}: {error.message}") from error

    def read(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            problems = error.errors(include_input=False, include_url=False, include_context=False)
            shown = "; ".join(f"{'.'.join(map(str, one['loc']))} ({one['type']})" for one in problems[:PROBLEMS_MAX])
            raise DecodeError(f"the value does not fit the model {model.__name__}: {shown}") from None

    return read


@dataclasses.dataclass
class _Writer:
    namespace: str | None
    names: dict[type[Any], str] = dataclasses.field(default_factory=dict)

    def record(self, model: type[Any]) -> Any:
        if model in self.names:
            return self.names[model]
        if model.__name__ in self.names.values():
            raise SchemaError(f"two classes are named {model.__name__}: a schema needs different names")
        top = not self.names
        self.names[model] = model.__name__
        tree: dict[str, Any] = {"type": "record", "name": model.__name__}
        if top and self.namespace:
            tree["namespace"] = self.namespace
        tree["fields"] = [self.field(f"{model.__name__}.{name}", name, *of) for name, of in _fields(model).items()]
        return tree

    def field(self, where: str, name: str, hint: Any, details: tuple[Any, ...], default: Any) -> dict[str, Any]:
        kind = self.kind(where, hint, details)
        found: dict[str, Any] = {"name": name, "type": kind}
        as_json = _default(default)
        if as_json is _ABSENT:
            return found
        if isinstance(kind, list) and (as_json is None) != (kind[0] == "null"):
            kind.sort(key=lambda branch: (branch == "null") != (as_json is None))
        return found | {"default": as_json}

    def kind(self, where: str, hint: Any, details: tuple[Any, ...] = ()) -> Any:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated:
            return self.kind(where, arguments[0], (*details, *hint.__metadata__))
        if hint is decimal.Decimal:
            return _decimal(where, details)
        if hint in _SIMPLE:
            return _SIMPLE[hint]
        if origin in (typing.Union, types.UnionType):
            return self.union(where, arguments, details)
        if origin is typing.Literal:
            return self.enum(where, where.rpartition(".")[2].title().replace("_", ""), list(arguments))
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return self.enum(where, hint.__name__, [one.value for one in hint], hint)
        if is_model(hint):
            return self.record(hint)
        if origin in _LISTS and arguments and not (origin is tuple and (len(arguments) != 2 or arguments[1] is not ...)):
            return {"type": "array", "items": self.kind(where, arguments[0])}
        if origin in _MAPS and arguments and arguments[0] is str:
            return {"type": "map", "values": self.kind(where, arguments[1])}
        raise SchemaError(f"{where}: {hint!r} has no type of Avro that it stands for")

    def union(self, where: str, arguments: tuple[Any, ...], details: tuple[Any, ...]) -> list[Any]:
        branches: list[Any] = []
        for one in arguments:
            kind = self.kind(where, one, details)
            branches += kind if isinstance(kind, list) else [kind]
        return branches

    def enum(self, where: str, name: str, symbols: list[Any], cls: type[Any] | None = None) -> Any:
        if cls is not None and cls in self.names:
            return self.names[cls]
        if not all(isinstance(one, str) and _SYMBOL.fullmatch(one) for one in symbols):
            raise SchemaError(f"{where}: symbols of an enum are texts of letters, digits and _; use str for others")
        if cls is not None:
            self.names[cls] = name
        return {"type": "enum", "name": name, "symbols": symbols}


def _fields(model: type[Any]) -> dict[str, tuple[Any, tuple[Any, ...], Any]]:
    """Name → (type, what Annotated and Field say of it, default)."""
    try:
        if issubclass(model, BaseModel):
            return {name: _pydantic(info) for name, info in model.model_fields.items()}
        hints = typing.get_type_hints(model, include_extras=True)
    except (NameError, PydanticUserError) as error:
        raise SchemaError(f"the types of {model.__name__} cannot be resolved: {error}") from error
    return {one.name: (hints[one.name], (), _dataclass_default(one)) for one in dataclasses.fields(model)}


def _pydantic(info: FieldInfo) -> tuple[Any, tuple[Any, ...], Any]:
    if info.is_required():
        default = _ABSENT
    elif info.default_factory in (list, dict):
        default = info.default_factory()
    else:
        default = _ABSENT if info.default_factory is not None else info.default
    return info.annotation, tuple(info.metadata), default


def _dataclass_default(one: dataclasses.Field[Any]) -> Any:
    if one.default is not dataclasses.MISSING:
        return one.default
    return one.default_factory() if one.default_factory in (list, dict) else _ABSENT


def _default(value: Any) -> Any:
    """A default as a schema writes it; absent where Avro has no way to say it."""
    if isinstance(value, enum.Enum):
        return value.value
    try:
        return value if value is None or json.loads(json.dumps(value)) == value else _ABSENT
    except (TypeError, ValueError):
        return _ABSENT


def _decimal(where: str, details: tuple[Any, ...]) -> dict[str, Any]:
    names = ("max_digits", "decimal_places")
    found = {name: getattr(one, name) for one in _flat(details) for name in names if hasattr(one, name)}
    digits, places = found.get("max_digits"), found.get("decimal_places")
    if digits is None or places is None:
        raise SchemaError(f"{where}: say how large: Annotated[Decimal, Field(max_digits=12, decimal_places=2)]")
    return {"type": "bytes", "logicalType": "decimal", "precision": digits, "scale": places}


def _flat(details: tuple[Any, ...]) -> list[Any]:
    """A Field inside Annotated holds what it says in a list of its own."""
    return [one for each in details for one in (each.metadata if isinstance(each, FieldInfo) else [each])]
