"""A road to a server that ends at a chosen text: what went before has arrived, nothing after it.

A process whose connection is held there stands at one known step of what it was doing, and may be
killed at that step as often as a test is run.
"""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading
from typing import Any

READ_BYTES = 64 * 1024
TEXT_BYTES = 256  # no text that is waited for may be longer


class Gate:
    """Listens on a port of its own and passes everything on to a server.

    While it waits for a text, the first connection that sends it is held before its end, and
    `is_reached` is set.
    """

    def __init__(self, *, host: str, port: int) -> None:
        self._server = (host, port)
        self._text: re.Pattern[bytes] | None = None
        self.is_reached = threading.Event()
        self._listener = _Listener(("127.0.0.1", 0), _Connection)
        self._listener.gate = self
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,))

    @property
    def port(self) -> int:
        return self._listener.server_address[1]

    def __enter__(self) -> Gate:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown()
        self._listener.close_connections()
        self._listener.server_close()
        self._thread.join()

    def hold_at(self, text: bytes) -> None:
        """`text` is a regular expression."""
        self.is_reached.clear()
        self._text = re.compile(text)

    def connect(self) -> socket.socket:
        return socket.create_connection(self._server, timeout=5)

    def passing(self, before: bytes, data: bytes) -> int | None:
        """How much of `data` goes on before the connection is held; None: all, and it is not.

        `before` are the last bytes that have gone already: a text may come in two pieces.
        """
        found = None if self._text is None else self._text.search(before + data)
        if found is None:
            return None
        self._text = None  # one connection alone
        return max(0, found.start() - len(before))


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    gate: Gate

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._sockets: list[socket.socket] = []

    def remember(self, *sockets: socket.socket) -> None:
        self._sockets += sockets

    def close_connections(self) -> None:
        for each in self._sockets:
            _shut(each)


class _Connection(socketserver.BaseRequestHandler):
    server: _Listener

    def handle(self) -> None:
        gate = self.server.gate
        try:
            server = gate.connect()
        except OSError:
            return  # the client sees its connection closed, as by a server that is gone
        self.server.remember(self.request, server)
        server.settimeout(None)
        back = threading.Thread(target=_pass_on, args=(server, self.request), daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            self._forward(gate, server)
        _shut(server)
        _shut(self.request)
        back.join()
        server.close()

    def _forward(self, gate: Gate, server: socket.socket) -> None:
        before = b""
        while data := self.request.recv(READ_BYTES):
            length = gate.passing(before, data)
            server.sendall(data[:length])
            before = (before + data)[-TEXT_BYTES:]
            if length is not None:
                gate.is_reached.set()
                while self.request.recv(READ_BYTES):
                    pass  # until its client, or its server, is gone
                return


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(READ_BYTES):
            target.sendall(data)
    _shut(source)
    _shut(target)


def _shut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
