"""headrace schema …: check, infer, register, show, list."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from pipeline.cli.output import Json, print_json, print_table, say
from pipeline.config import Config, load_config
from pipeline.errors import SchemaError
from pipeline.kafka.registry_client import RegistryClient
from pipeline.schema.compatibility import Level
from pipeline.schema.envelope import envelope_text, is_envelope, value_schema_of
from pipeline.schema.infer import infer as infer_schema
from pipeline.schema.models import is_model, schema_of
from pipeline.schema.releases import check_file, incompatibilities, schema_files
from pipeline.schema.value_schema import ValueSchema, load_schema, parse_schema


def register(app: typer.Typer) -> None:
    """Add the group `schema` to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Schemas: check, infer, register, show and list them.")
    for command in (check, infer, show):
        group.command()(command)
    group.command("register")(register_schema)
    group.command("list")(list_schemas)
    app.add_typer(group, name="schema")


def check(
    paths: Annotated[list[Path], typer.Argument(help="Schema files, or folders of them.")],
    level: Annotated[
        Level, typer.Option(help="Which readers have to read which writers.", case_sensitive=False)
    ] = Level.BACKWARD_TRANSITIVE,
    stream: Annotated[str | None, typer.Option(help="Compare with what the registry has of this stream, too.")] = None,
    as_json: Json = False,
) -> None:
    """Check schema files, and that each can follow its released versions (the folder `released` beside it)."""
    files = schema_files(paths)
    if not files:
        raise SchemaError(f"no *.avsc in {', '.join(map(str, paths))}")
    if stream is not None and len(files) != 1:
        raise typer.BadParameter("--stream compares one schema file")
    rows: list[dict[str, Any]] = []
    for path in files:
        try:
            done = check_file(path, level)
            problems = list(done.problems) or ([] if stream is None else _registered_problems(load_config(), stream, path))
            rows.append({"file": str(path), "schema": done.full_name, "released": list(done.released), "problems": problems})
        except SchemaError as error:
            text = str(error).removeprefix(f"{path}: ")
            rows.append({"file": str(path), "schema": None, "released": [], "problems": [text]})
    bad = [f"{row['file']}: {problem}" for row in rows for problem in row["problems"]]
    if as_json:
        print_json({"schemas": rows})
        if bad:
            raise typer.Exit(1)
    elif bad:
        raise SchemaError("\n".join(bad))
    else:
        for row in rows:
            versions = ", ".join(map(str, row["released"]))
            say(f"{row['file']}: {row['schema']} is fine" + (f"; it can follow {versions}." if versions else "."))


def infer(
    source: Annotated[str, typer.Argument(help="A file of JSON lines, - for standard input, or a model: package.module:Class.")],
    name: Annotated[str | None, typer.Option(help="Name of the record; default: from the file's name.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Namespace of the record.")] = None,
    as_json: Json = False,
) -> None:
    """Print the schema of JSON lines, or of a pydantic model or dataclass: a start to look over, then to check and commit."""
    if ":" in source and not Path(source).exists():
        schema = schema_of(_model(source), namespace)
    else:
        named = name or re.sub(r"[^A-Za-z0-9]+", "", Path(source).stem.title()) or "Record"
        with _lines(source) as lines:
            schema = infer_schema(lines, named, namespace, source)
    tree = json.loads(schema.text)
    if as_json:
        print_json(tree)
    else:
        typer.echo(json.dumps(tree, indent=2, ensure_ascii=False))


def _model(source: str) -> type[Any]:
    module, _, name = source.partition(":")
    sys.path.insert(0, "")  # a module of the current folder, as `python -m` finds it
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise SchemaError(f"{source}: cannot be imported: {error}") from None
    if not is_model(found):
        raise SchemaError(f"{source}: no pydantic model or dataclass of this name")
    model: type[Any] = found  # type: ignore[assignment]
    return model


@contextmanager
def _lines(source: str) -> Iterator[TextIO]:
    try:
        file = sys.stdin if source == "-" else Path(source).open(encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise SchemaError(f"{source}: cannot be read: {error.strerror}") from None
    try:
        yield file
    except UnicodeDecodeError as error:
        raise SchemaError(f"{source}: not UTF-8 at byte {error.start}") from None
    finally:
        if source != "-":
            file.close()


def register_schema(
    stream: Annotated[str, typer.Argument(help="The stream's name in headrace.yml.")], as_json: Json = False
) -> None:
    """Register the schema of a stream of headrace.yml: the record under its full name, the aggregate under the subject."""
    config = load_config()
    settings = config.stream(stream)
    schema = load_schema(settings.avro_schema)
    registry = RegistryClient(config.connection)
    # The aggregate first: it is what messages are written with, so it is the one to be refused.
    packed = registry.register(settings.subject, envelope_text(schema))
    ids = {settings.subject: packed, schema.full_name: registry.register(schema.full_name, schema.text)}
    if as_json:
        print_json({"stream": stream, "ids": ids})
    else:
        say("Registered " + ", ".join(f"{subject} as id {number}" for subject, number in ids.items()) + ".")


def show(
    schema: Annotated[str, typer.Argument(help="A subject, a stream's name, or a schema's id.")],
    version: Annotated[int | None, typer.Option(min=1, help="A version of the subject; default: the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Print a schema of the registry. Of an aggregate, people see the record inside; --json gives both."""
    config = load_config()
    registry = RegistryClient(config.connection)
    if schema.isdecimal():
        found: dict[str, Any] = {"id": int(schema), "subjects": registry.subjects_of(int(schema))}
        text = registry.schema_text(int(schema))
    else:
        subject = config.streams[schema].subject if schema in config.streams else schema
        registered = registry.version(subject, version)
        if registered is None:
            which = f"version {version}" if version else "versions"
            raise SchemaError(f"the registry has no {which} of subject {subject!r}: `headrace schema list` shows what there is")
        found = {"subject": subject, "version": registered.version, "id": registered.id}
        text = registered.text
    value = value_schema_of(text).text if is_envelope(text) else None
    if as_json:
        print_json(found | {"schema": json.loads(text), "value": None if value is None else json.loads(value)})
        return
    say(", ".join(f"{name} {' '.join(item) if isinstance(item, list) else item}" for name, item in found.items()))
    typer.echo(json.dumps(json.loads(value or text), indent=2, ensure_ascii=False))


def list_schemas(as_json: Json = False) -> None:
    """Every subject of the registry, its versions, and the stream of headrace.yml that it is of."""
    config = load_config()
    registry = RegistryClient(config.connection)
    streams = {settings.subject: name for name, settings in config.streams.items()}
    rows = []
    for subject in registry.subjects():
        newest = registry.version(subject)
        if newest is not None:  # deleted since the list was made
            rows.append({"subject": subject, "stream": streams.get(subject), "versions": newest.version, "newest_id": newest.id})
    if as_json:
        print_json({"subjects": rows})
    else:
        print_table("Schemas", ["subject", "stream", "newest version", "its id"], [list(row.values()) for row in rows])


def _registered_problems(config: Config, stream: str, path: Path) -> list[str]:
    """What the registry's versions say against a schema file, at its levels: those of the stream, and of the record's name."""
    registry = RegistryClient(config.connection)
    schema = load_schema(path)
    for subject, text in ((config.stream(stream).subject, envelope_text(schema)), (schema.full_name, schema.text)):
        versions = [_value(one.text, f"version {one.version} of {subject}") for one in registry.versions(subject)]
        problems = incompatibilities(schema, versions, Level(registry.level(subject)))
        if not problems and not registry.would_take(subject, text):
            problems = ["the registry's own rules refuse it"]
        if problems:
            return [f"subject {subject}: {problem}" for problem in problems]
    return []


def _value(text: str, source: str) -> ValueSchema:
    return value_schema_of(text, source) if is_envelope(text) else parse_schema(text, source)
