"""The command line `headrace`. Each group of commands is a file beside this one; this one only gathers them and turns an
error into one clear sentence and a non-zero exit."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pipeline import logs
from pipeline.cli import again, jobs, quality, records, schema, stack, stream, table, table_history, watch
from pipeline.errors import HeadraceError, InvariantError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="headrace",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Streaming pipelines on Kafka: small records, in order per key, exactly once into tables.",
)


@app.callback()
def settings(
    config: Annotated[str | None, typer.Option("--config", envvar="HEADRACE_CONFIG", help="Path of headrace.yml.")] = None,
) -> None:
    """Options of every command."""
    if config is not None:
        import os

        os.environ["HEADRACE_CONFIG"] = config


stack.register(app)
stream.register(app)
records.register(app)
again.register(app)
schema.register(app)
jobs.register(app)
table_history.register_maintain(app)
quality.register(app)
table.register(app)
watch.register(app)


def main() -> None:
    """Entry point: exit 0, 1 after an error (one sentence on standard error), 2 for wrong usage, 130 after Ctrl-C."""
    logs.configure(as_json=True if "--json" in sys.argv else None)
    try:
        app()
    except InvariantError as error:
        print(f"headrace: a bug of ours: {error}. Please report it with the logs.", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_ERROR)
    except HeadraceError as error:
        print(f"headrace: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
