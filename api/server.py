"""Runs the API on uvicorn: sockets, signals, an orderly end.

uvloop and httptools are not optional here: without them uvicorn quietly falls back to parts that
are three times slower, so a missing one is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn

from shared.startup import loaded
from api.app import create_app
from api.lifecycle import Lifecycle
from api.local_copies import check_folder
from shared.errors import TasteMatchError
from shared.logs import get_logger
from shared.metrics_listener import start_metrics_listener
from shared.settings import Settings

BACKLOG = 1024
KEEP_ALIVE_SECONDS = 5
DRAIN_SECONDS = 2.0  # in which the port stays open while requests are being answered
GRACE_SECONDS = 5
POLL_SECONDS = 0.05

Companion = Callable[[], Awaitable[None]]


def run(settings: Settings, *, host: str, port: int, companion: Companion | None = None) -> None:
    """Serves until SIGINT or SIGTERM and returns once everything is closed.

    `companion` runs beside the server and is cancelled when it ends. Raises TasteMatchError where
    the port is taken or a package is missing, SettingsError.
    """
    for package in ("uvloop", "httptools"):
        if importlib.util.find_spec(package) is None:
            raise TasteMatchError(f"the package {package} is missing; install tastematch[api]")
    check_folder(settings.snapshots_dir)
    lifecycle = Lifecycle()
    sockets = open_sockets(host, port)
    listener = None
    try:
        app = create_app(settings, lifecycle=lifecycle)
        if settings.metrics_port is not None:
            listener = start_metrics_listener(settings.metrics_port, host)
        _route_uvicorn_logs()
        config = uvicorn.Config(
            app.middleware_stack,  # type: ignore[arg-type]
            loop="uvloop",
            http="api.hot_protocol:HotProtocol",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
            backlog=BACKLOG,
        )
        server = _Server(config, lifecycle)
        loaded()
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(server, sockets, companion))
    finally:
        if listener is not None:
            listener.close()
        for opened in sockets:
            opened.close()


def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Listening addresses: `localhost` is 127.0.0.1 and [::1], `::` is IPv6 and IPv4 at once.

    Raises TasteMatchError, in one clear line, where the port is taken or the host unknown.
    """
    wanted: list[tuple[int, str, bool]]
    if host == "localhost":
        wanted = [(socket.AF_INET, "127.0.0.1", True), (socket.AF_INET6, "::1", False)]
    else:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise TasteMatchError(f"TASTEMATCH_HOST: {host!r} is not an address here") from None
        wanted = [(int(found[0][0]), str(found[0][4][0]), True)]
    sockets: list[socket.socket] = []
    try:
        for family, address, is_required in wanted:
            listener = _bound(family, address, port, is_required=is_required)
            if listener is not None:
                sockets.append(listener)
    except OSError as error:
        for listener in sockets:
            listener.close()
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} is taken by another program; set PORT to a free one"
        else:
            message = f"cannot listen on port {port} ({error.strerror})"
        raise TasteMatchError(message) from None
    return sockets


class _Server(uvicorn.Server):
    """Ends with status 0 after a signal, and lets requests in flight finish before it closes."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self.beside: asyncio.Future[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # The parent keeps the signal to die of it again at the end.
        if self._lifecycle.is_draining and sig == signal.SIGINT:
            self.force_exit = True
        self._lifecycle.is_draining = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        addresses = [listener.getsockname()[:2] for listener in sockets or ()]
        get_logger(__name__).info("api.started", addresses=addresses)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.beside is not None:
            self.beside.cancel()  # it ends while requests do
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_SECONDS
        while self.server_state.tasks and loop.time() < deadline and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)  # uvicorn tells nobody when its tasks end
        await super().shutdown(sockets)


async def _serve(
    server: _Server, sockets: list[socket.socket], companion: Companion | None
) -> None:
    beside = None if companion is None else asyncio.ensure_future(companion())
    server.beside = beside
    try:
        await server.serve(sockets=sockets)
    finally:
        if beside is not None:
            beside.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beside


def _bound(family: int, address: str, port: int, *, is_required: bool) -> socket.socket | None:
    """None where an address that is not required does not exist on this machine."""
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        if is_required:
            raise
        return None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if is_required or error.errno == errno.EADDRINUSE:
            raise
        return None
    listener.setblocking(False)
    return listener


class _UvicornLogs(logging.Handler):
    """Uvicorn's own remarks, as events of ours; what a request made it say is a debug matter."""

    def emit(self, record: logging.LogRecord) -> None:
        log = get_logger("uvicorn")
        if record.exc_info:
            log.error("server.failed", exc_info=record.exc_info[1])
        elif record.levelno >= logging.ERROR:
            log.error("server.trouble", message=record.getMessage())
        else:
            log.debug("server", message=record.getMessage())


def _route_uvicorn_logs() -> None:
    logger = logging.getLogger("uvicorn")
    logger.handlers = [_UvicornLogs()]
    logger.propagate = False
    for name in ("uvicorn", "uvicorn.error"):  # at level 0 it would trace every connection
        logging.getLogger(name).setLevel(logging.INFO)
