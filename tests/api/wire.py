"""HTTP/1.1 by hand: what stands on the wire, without a client library's own opinion of it."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Reply:
    """`fields` in the order of the wire."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """The one value of a field that is there exactly once."""
        (value,) = [value for key, value in self.fields if key == name]
        return value

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.fields}


class Wire:
    """One connection. A body where none belongs is taken for the next answer, and fails there."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._read = b""

    def ask(
        self,
        target: str,
        *,
        method: str = "GET",
        fields: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        host: str | None = "api.test",
    ) -> Reply:
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [] if host is None else [f"Host: {host}"]
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        lines += [f"{name}: {value}" for name, value in pairs]
        lines += [f"Content-Length: {len(body)}"] if body else []
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        self._connection.sendall(head + body)
        return self.reply(has_body=method != "HEAD")

    def reply(self, *, has_body: bool) -> Reply:
        while b"\r\n\r\n" not in self._read:
            self._receive()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        fields = tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))
        reply = Reply(int(status), fields, b"")
        assert "transfer-encoding" not in reply.names
        if not has_body or reply.status in (204, 304):
            return reply
        size = int(reply["content-length"])
        while len(self._read) < size:
            self._receive()
        body, self._read = self._read[:size], self._read[size:]
        return Reply(reply.status, fields, body)

    def is_closed(self, *, within_seconds: float) -> bool:
        """Whether the server ends the connection, of which nothing is left to read, in time."""
        self._connection.settimeout(within_seconds)
        try:
            return self._connection.recv(1) == b""
        except TimeoutError:
            return False
        finally:
            self._connection.settimeout(TIMEOUT_SECONDS)

    def _receive(self) -> None:
        piece = self._connection.recv(65_536)
        assert piece, f"the server closed after {self._read!r}"
        self._read += piece


@contextmanager
def wire(port: int) -> Iterator[Wire]:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connection:
        yield Wire(connection)
