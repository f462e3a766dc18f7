"""The HTTP endpoint of this process's metrics: one for all its producers, consumers and jobs, started by the first of them.

It must never be in the way: where no port can be had, or the folder cannot be written, a warning is logged and the process
goes on without. Bounded: so many scrapes at once, each within a timeout. A forked child has an endpoint (and counts) of its own
as soon as it makes a producer or consumer.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
from http import HTTPStatus
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import psutil
from prometheus_client import REGISTRY, make_wsgi_app, push_to_gateway
from prometheus_client.metrics import MetricWrapperBase

from pipeline.config import Config
from pipeline.config.load import home
from pipeline.config.model import MetricsSettings
from pipeline.observe import targets
from pipeline.observe.exposition import Exposed
from pipeline.observe.health import with_health

log = logging.getLogger("headrace.metrics")
SCRAPES_MAX = 4
SCRAPE_TIMEOUT_S = 10.0
PUSH_TIMEOUT_S = 10.0
_ANY = ("", "0.0.0.0", "::")


def serve(config: Config, role: str) -> str | None:
    """Make sure that this process serves its metrics, and that they are found under HEADRACE_HOME. The first caller decides
    host, port and ``role``. Returns the endpoint's URL; None where metrics are off or cannot be served. Safe from any thread."""
    if not config.metrics.enabled:
        return None
    try:
        with _lock:
            return _locked_serve(config.metrics, role, home())
    except (OSError, psutil.Error) as error:
        log.warning("no metrics endpoint in this process: %s", error)
        return None


def push(config: Config, role: str) -> None:
    """Hand this process's metrics to the Pushgateway that is configured, if there is one: for jobs that end before they are
    scraped. A later run of the same ``role`` replaces them. Never in the way either."""
    gateway = config.metrics.pushgateway
    if not (config.metrics.enabled and gateway):
        return
    try:
        push_to_gateway(gateway, job="headrace", registry=REGISTRY, grouping_key={"role": role}, timeout=PUSH_TIMEOUT_S)
    except OSError as error:
        log.warning("the metrics were not pushed to %s: %s", gateway, error)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int]) -> None:
        self._room = threading.BoundedSemaphore(SCRAPES_MAX)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)
        self.set_app(with_health(make_wsgi_app(Exposed())))

    def server_bind(self) -> None:
        # WSGIServer's looks the host's name up, which may wait for a name server for seconds.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a scrape was broken off", exc_info=True)


class _Handler(WSGIRequestHandler):
    timeout = SCRAPE_TIMEOUT_S

    def handle(self) -> None:
        try:
            super().handle()
        except TimeoutError:
            self.close_connection = True

    def do_POST(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


_lock = threading.Lock()
_server: _Server | None = None
_pid = 0
_homes: set[Path] = set()


def _locked_serve(settings: MetricsSettings, role: str, place: Path) -> str:
    global _server, _pid
    if _server is None:
        if _pid not in (0, os.getpid()):
            _begin_anew()
        _server = _start(settings)
        _pid = os.getpid()
        atexit.register(_leave, _pid)
    target = targets.target_of(role, os.getpid(), _address(_server))
    if place not in _homes:
        targets.running(place)  # removes what processes killed before left
        targets.add(place, target)
        _homes.add(place)
    return target.url


def _start(settings: MetricsSettings) -> _Server:
    try:
        server = _Server((settings.host, settings.port))
    except OSError as error:
        if settings.port == 0:
            raise
        server = _Server((settings.host, 0))
        log.warning("metrics port %d cannot be had (%s): this process takes %d", settings.port, error, server.server_port)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 5.0}, name="headrace-metrics", daemon=True).start()
    return server


def _address(server: _Server) -> str:
    host = str(server.server_address[0])
    host = socket.gethostname() if host in _ANY else f"[{host}]" if ":" in host else host
    return f"{host}:{server.server_port}"


def _leave(pid: int) -> None:
    if pid == os.getpid():
        for place in _homes:
            targets.remove(place, pid)


def _in_child() -> None:
    """After a fork: the parent's socket is not ours, its threads are not here, and the lock may be held by one of them."""
    global _lock, _server
    _lock = threading.Lock()
    _homes.clear()
    if _server is not None:
        _server.socket.close()
        _server = None


def _begin_anew() -> None:
    """What the parent had counted at the fork is told by the parent."""
    for metric in {id(one): one for one in REGISTRY._names_to_collectors.values()}.values():
        if isinstance(metric, MetricWrapperBase):
            metric.clear()


os.register_at_fork(after_in_child=_in_child)
