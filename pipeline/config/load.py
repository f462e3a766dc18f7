"""Reading headrace.yml: YAML with line numbers, ``${VARIABLES}``, environment overrides, profiles.

Order of precedence, last wins: the defaults, the file, ``HEADRACE__SECTION__KEY=value`` from the environment. A value is
replaced by its variable as a whole text, never parsed again, so a password may hold any character.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.config.model import STREAM_NAME, TABLE_NAME, Config, Connection
from pipeline.errors import ConfigError

CONFIG_VARIABLE = "HEADRACE_CONFIG"
HOME_VARIABLE = "HEADRACE_HOME"
OVERRIDE_PREFIX = "HEADRACE__"
FILE_BYTES_MAX = 1 << 20
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_COMPOSE = {"bootstrap": "localhost:9092", "registry": "http://localhost:8081"}
Lines = dict[tuple[str, ...], int]
_BOOLEAN = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    """Booleans as YAML 1.2 has them, `true` and `false`: the key `on` and Norway's code `NO` are words."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def load_config(path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Load, check and resolve a configuration.

    ``path`` defaults to HEADRACE_CONFIG, then ``headrace.yml`` here. Raises ConfigError naming file, line and what is
    expected; never with a secret in it.
    """
    env = os.environ if environ is None else environ
    file = Path(path or env.get(CONFIG_VARIABLE) or "headrace.yml").absolute()
    data, lines = _read(file)
    _override(data, env)
    data = _substitute(data, env, file, lines, ())
    _names(data, file, lines)
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error, file, lines)) from None
    return _resolve(config, file, env)


def home(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of the embedded stack: HEADRACE_HOME, else ``.headrace`` here."""
    env = os.environ if environ is None else environ
    return Path(env.get(HOME_VARIABLE) or ".headrace").absolute()


def _read(file: Path) -> tuple[dict[str, Any], Lines]:
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(f"{file}: larger than {FILE_BYTES_MAX:,} bytes; a configuration is expected")
        text = file.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file: write one (README shows the shortest), or set {CONFIG_VARIABLE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    lines: Lines = {}
    try:
        root = yaml.compose(text, _Loader)
        data = yaml.load(text, _Loader) if root is not None else {}
        if root is not None:
            _number(root, (), lines, file)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or 'cannot be parsed'}") from None
    except RecursionError:
        raise ConfigError(f"{file}: nested too deeply for a configuration") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{file}:1: expected a mapping with profile, streams and tables")
    return data, lines


def _number(node: yaml.Node, at: tuple[str, ...], lines: Lines, file: Path) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise ConfigError(f"{file}:{key.start_mark.line + 1}: {'.'.join((*at, name))} is given twice")
            seen.add(name)
            lines[(*at, name)] = key.start_mark.line + 1
            _number(value, (*at, name), lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _number(value, (*at, str(index)), lines, file)


def _override(data: dict[str, Any], env: Mapping[str, str]) -> None:
    """HEADRACE__STREAMS__FLIGHTS__SHARDS=8: names are compared without case, and `.` and `-` as `_`."""
    for variable in sorted(env):
        if not variable.startswith(OVERRIDE_PREFIX):
            continue
        at: Any = data
        *path, last = variable[len(OVERRIDE_PREFIX) :].split("__")
        for part in path:
            at = at.setdefault(_existing(at, part), {})
            if not isinstance(at, dict):
                raise ConfigError(f"the environment's {variable}: {part.lower()} is not a section")
        at[_existing(at, last)] = yaml.load(env[variable], _Loader) if "password" not in last.lower() else env[variable]


def _existing(section: Mapping[str, Any], part: str) -> str:
    def plain(name: str) -> str:
        return re.sub(r"[.-]", "_", name).lower()

    return next((key for key in section if plain(str(key)) == plain(part)), part.lower())


def _substitute(value: Any, env: Mapping[str, str], file: Path, lines: Lines, at: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _substitute(item, env, file, lines, (*at, str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, env, file, lines, (*at, str(i))) for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in env:
            where = f"{file}:{_line(lines, at)}: {'.'.join(at)}"
            raise ConfigError(f"{where}: the environment has no variable {name}: set it, or write the value here")
        return env[name]

    # Profiles that are not chosen may name variables that are not set here.
    return value if at[:1] == ("profiles",) else _VARIABLE.sub(variable, value)


def _names(data: dict[str, Any], file: Path, lines: Lines) -> None:
    """Give every stream and table its own name, and check it."""
    for section, pattern, shape in (
        ("streams", STREAM_NAME, "letters, digits, - and _ (dots are taken for topics such as <stream>.control)"),
        ("tables", TABLE_NAME, "bronze.NAME, silver.NAME or gold.NAME"),
    ):
        entries = data.get(section)
        if not isinstance(entries, dict):
            continue
        for name, entry in entries.items():
            if not pattern.fullmatch(str(name)):
                raise ConfigError(f"{file}:{_line(lines, (section, str(name)))}: {section}.{name}: expected {shape}")
            if isinstance(entry, dict):
                entries[name] = entry | {"name": str(name)}


def _line(lines: Lines, at: tuple[str, ...]) -> int:
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at, 1)


def _explain(error: ValidationError, file: Path, lines: Lines) -> str:
    out = []
    for problem in error.errors(include_input=False, include_url=False)[:10]:
        at = tuple(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        if problem["type"] == "extra_forbidden":
            message = "is not an option here; see docs/configuration.md for those there are"
        elif problem["type"] == "missing":
            message = "is missing"
        named = re.match(r"tables\.(\w+\.\w+)\.(\w+): ", message)
        if not at and named:
            at = ("tables", named.group(1), named.group(2))
            message = message[named.end() :]
        out.append(f"{file}:{_line(lines, at)}: {'.'.join(at)}{': ' if at else ''}{message}")
    return "\n".join(out)


def _resolve(config: Config, file: Path, env: Mapping[str, str]) -> Config:
    base = file.parent

    def absolute(path: Path) -> Path:
        return path if path.is_absolute() else base / path

    schemas = {name: stream.schema_path and absolute(stream.schema_path) for name, stream in config.streams.items()}
    streams = {name: stream.model_copy(update={"schema_path": schemas[name]}) for name, stream in config.streams.items()}
    tables = {n: t.model_copy(update={"sql": absolute(t.sql) if t.sql else None}) for n, t in config.tables.items()}
    warehouse = config.warehouse
    if "://" not in warehouse:
        warehouse = str(absolute(Path(warehouse)))
    references = {name: absolute(path) for name, path in config.references.items()}
    update = {"streams": streams, "tables": tables, "warehouse": warehouse, "references": references}
    resolved = config.model_copy(update=update)
    resolved._path = file
    resolved._connection = _connection(config, file, env)
    return resolved


def _connection(config: Config, file: Path, env: Mapping[str, str]) -> Connection | None:
    if config.profile == "embedded":
        return _embedded(env)
    if config.profile in config.profiles:
        chosen = config.profiles[config.profile]
        plain = chosen.model_dump() | {"kafka": {k: v.get_secret_value() for k, v in chosen.kafka.items()}}
        if chosen.registry_auth:
            plain["registry_auth"] = chosen.registry_auth.get_secret_value()
        at = ("profile", config.profile)
        filled = {key: _substitute(value, env, file, {}, at) for key, value in plain.items()}
        for required in ("bootstrap", "registry"):
            if not filled[required]:
                raise ConfigError(f"{file}: profiles.{config.profile}.{required} is missing")
        return Connection.model_validate(filled)
    if config.profile == "compose":
        return Connection.model_validate(_COMPOSE)
    there = ", ".join(["embedded", "compose", *sorted(config.profiles)])
    raise ConfigError(f"{file}: profile {config.profile!r} is not known; there are: {there}")


def _embedded(env: Mapping[str, str]) -> Connection | None:
    try:
        state = json.loads((home(env) / "stack.json").read_text("utf-8"))
        kafka, registry = state["kafka"], state["registry"]
        return Connection(bootstrap=kafka["bootstrap"], registry=registry["url"], cluster_id=kafka["cluster_id"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        file = home(env) / "stack.json"
        raise ConfigError(f"{file} is damaged ({type(error).__name__}): run `headrace down`, then `headrace up`") from None
