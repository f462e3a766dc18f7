"""``python -m pipeline.registry --bootstrap HOST:PORT --port PORT``: serves until it is told to stop."""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import Sequence

import uvicorn

from pipeline import logs
from pipeline.errors import ConfigError
from pipeline.kafka.schemas_topic import SchemasTopic
from pipeline.registry.app import create_app
from pipeline.registry.options import Options, parse
from pipeline.registry.records import NOOP_KEY
from pipeline.registry.store import SchemaStore


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 after a stop that was asked for, 2 for wrong options, 3 if it could not listen."""
    logs.configure(role="registry")
    logging.getLogger("uvicorn").setLevel(logging.INFO)
    try:
        options = parse(arguments)
        server = uvicorn.Server(server_config(options))
    except (ConfigError, ssl.SSLError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    server.run()
    return 0 if server.started else 3


def server_config(options: Options) -> uvicorn.Config:
    """The whole server, wired: topic, store, application, sockets."""
    topic = SchemasTopic(options.kafka, options.topic, noop_key=NOOP_KEY, timeout_s=options.timeout_s)
    app = create_app(
        SchemaStore(topic), users=options.users, requests_max=options.requests_max, body_bytes_max=options.body_bytes_max
    )
    return uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_config=None,
        log_level="info",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=64 * 1024,
        ssl_certfile=options.tls_certificate,
        ssl_keyfile=options.tls_key,
        ssl_keyfile_password=options.tls_password,
        ssl_ca_certs=options.tls_clients,
        ssl_cert_reqs=ssl.CERT_REQUIRED if options.tls_clients else ssl.CERT_NONE,
    )


if __name__ == "__main__":
    sys.exit(main())
