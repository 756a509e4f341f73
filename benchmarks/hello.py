"""The least an ASGI application can do, on the server that the API runs on: the yardstick."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import uvicorn

from api.server import KEEP_ALIVE_SECONDS
from tests.services.children import unused_port, wait_until
from tests.services.processes import REPOSITORY

BODY = b"[" + b",".join(b"%d" % number for number in range(100_001, 100_021)) + b"]"
FIELDS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": FIELDS})
    await send({"type": "http.response.body", "body": BODY})


@contextmanager
def running_hello(*, core: int) -> Iterator[tuple[str, int]]:
    """Runs it on that core; its URL and its process id."""
    port = unused_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.hello", str(port)], cwd=REPOSITORY
    )
    psutil.Process(process.pid).cpu_affinity([core])
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_until(lambda: answers(url), timeout_seconds=20, describe="the hello server")
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


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
