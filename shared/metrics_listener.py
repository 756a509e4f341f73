"""A small HTTP listener of its own for Prometheus: `GET /metrics`, and `GET /health` for checks.

It runs in threads beside the event loop, so that rendering delays no request. Meant for a private
network: it asks for no token and belongs on no public port.
"""

import errno
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from shared.errors import SettingsError
from shared.metrics import render

CONNECTION_SECONDS = 5

_PROBLEMS = {
    400: ("malformed-request", "The request cannot be read"),
    404: ("not-found", "There is nothing here"),
    405: ("method-not-allowed", "This resource has no such method"),
    414: ("url-too-long", "The address is too long"),
    431: ("headers-too-large", "The header fields are too large"),
}

# A machine without IPv6 may still know `localhost` by an IPv6 address.
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class MetricsListener:
    """Listens until `close`; made by `start_metrics_listener`."""

    def __init__(self, servers: list[ThreadingHTTPServer]) -> None:
        self._servers = servers
        self._threads = [
            threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
            for server in servers
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()


def start_metrics_listener(port: int, host: str) -> MetricsListener:
    """Listens on every address of `host` (`localhost` has two).

    Raises SettingsError where the port is taken or the host is none of this machine's.
    """
    servers: list[ThreadingHTTPServer] = []
    absent: OSError | None = None
    try:
        for family, address in _addresses(host, port):
            try:
                servers.append(_server(family, address))
            except OSError as error:
                if error.errno not in _NO_SUCH_ADDRESS:
                    raise
                absent = error
        if not servers and absent is not None:
            raise absent
    except OSError as error:
        for server in servers:
            server.server_close()
        reason = error.strerror or "no such host"
        raise SettingsError(f"TASTEMATCH_METRICS_PORT: cannot listen there ({reason})") from None
    return MetricsListener(servers)


class _Handler(BaseHTTPRequestHandler):
    timeout = CONNECTION_SECONDS
    _began = 0.0

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._answer(200, *render())
        elif self.path == "/health":
            self._answer(200, b'{"status":"ok"}', "application/json")
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def parse_request(self) -> bool:
        self._began = time.perf_counter()
        return super().parse_request()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Also what the base class finds wrong, in the form that errors of the API have."""
        if code == 501:  # a method for which there is no `do_`
            code = 405
        name, title = _PROBLEMS.get(code, _PROBLEMS[400])
        request_id = uuid.uuid4().hex
        document = {
            "type": f"urn:tastematch:problem:{name}",
            "title": title,
            "status": code,
            "detail": "/metrics and /health can be read here",
            "code": name,
            "request_id": request_id,
        }
        self.close_connection = True
        self._answer(code, orjson.dumps(document), "application/problem+json", request_id)

    def version_string(self) -> str:
        return "tastematch"

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not logged."""

    def _answer(
        self, status: int, body: bytes, content_type: str, request_id: str | None = None
    ) -> None:
        seconds = time.perf_counter() - self._began
        with suppress(OSError):  # the scraper went away
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Request-ID", request_id or uuid.uuid4().hex)
            self.send_header("X-Process-Time", f"{seconds:.6f}")
            self.send_header("Server-Timing", f"app;dur={seconds * 1000:.3f}")
            if status == 405:
                self.send_header("Allow", "GET, HEAD")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            # IPv4 comes by its own socket, except where the address means every interface.
            is_any = self.server_address[0] == "::"
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_any else 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        # Not the base class's: it asks the name service for the host's name.
        self.server_name, self.server_port = "tastematch", self.server_address[1]


def _addresses(host: str, port: int) -> Iterator[tuple[socket.AddressFamily, Any]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    yield from {(family, address) for family, _, _, _, address in found}


def _server(family: socket.AddressFamily, address: Any) -> ThreadingHTTPServer:
    kind = type("_FamilyServer", (_Server,), {"address_family": family})
    server: ThreadingHTTPServer = kind(address, _Handler)
    return server
