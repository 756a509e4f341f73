"""HTTP over one kept connection, as cheap as a client of a benchmark has to be."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self


class Asker:
    """One request at a time to one port of this machine."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    async def ask(
        self, method: str, path: str, document: object = None, *, token: str | None = None
    ) -> tuple[int, Any]:
        """(status, the answer's JSON)."""
        body = b"" if document is None else json.dumps(document).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {token or self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        async with self._lock:
            self._writer.write(head.encode() + body)
            answered = await self._reader.readuntil(b"\r\n\r\n")
            lines = answered.decode("latin-1").split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            content = await self._reader.readexactly(int(fields["content-length"]))
        return int(lines[0].split()[1]), json.loads(content) if content else None
