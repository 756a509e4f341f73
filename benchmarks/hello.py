"""The least an ASGI application can do, on the server that the API runs on: the yardstick."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

from api.server import KEEP_ALIVE_SECONDS

BODY = b"[" + b",".join(b"%d" % number for number in range(100_001, 100_021)) + b"]"
FIELDS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": FIELDS})
    await send({"type": "http.response.body", "body": BODY})


def main() -> None:
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )


if __name__ == "__main__":
    main()
