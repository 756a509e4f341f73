"""Closed-loop load on one address: by wrk where it is installed, else by sockets of our own.

The clients run in a process of their own, pinned to one core, and are bounded in number and time.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_CLIENTS = 64
MAX_SECONDS = 30.0
READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Load:
    requests: int
    seconds: float
    failures: int

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def generator() -> str:
    """What makes the load on this machine."""
    return "wrk" if shutil.which("wrk") else "sockets in Python"


def run_load(
    url: str, *, headers: Mapping[str, str], clients: int, seconds: float, core: int
) -> Load:
    """Asks for one address again and again over keep-alive connections."""
    assert clients <= MAX_CLIENTS, "the load is bounded"
    assert seconds <= MAX_SECONDS, "in time too"
    if shutil.which("wrk"):
        return _run_wrk(url, headers=headers, clients=clients, seconds=seconds, core=core)
    request = json.dumps([url, dict(headers), clients, seconds])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=request,
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 30,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    return Load(**json.loads(done.stdout))


def _run_wrk(
    url: str, *, headers: Mapping[str, str], clients: int, seconds: float, core: int
) -> Load:
    words = ["wrk", "-t1", f"-c{clients}", f"-d{round(seconds)}s"]
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    done = subprocess.run(
        [*words, url],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 30,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    total = re.search(r"(\d+) requests in ([0-9.]+)s", done.stdout)
    assert total is not None, done.stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    broken = [
        int(count) for count in re.findall(r"(?:connect|read|write|timeout) (\d+)", done.stdout)
    ]
    failures = sum(broken) + (0 if failed is None else int(failed[1]))
    return Load(int(total[1]), float(total[2]), failures)


class _Client(asyncio.Protocol):
    """One connection: the next request goes out when an answer is whole."""

    def __init__(self, request: bytes, until: float) -> None:
        self.request = request
        self.until = until
        self.answers = 0
        self.failures = 0
        self.done = asyncio.get_running_loop().create_future()
        self._pending = b""
        self._missing = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._pending += data
            head, separator, rest = self._pending.partition(b"\r\n\r\n")
            if not separator:
                return
            self._pending = b""
            self.failures += head[9:10] not in (b"2", b"3")
            found = re.search(rb"\ncontent-length: (\d+)", head)
            self._missing = (int(found[1]) if found else 0) - len(rest)
        if self._missing > 0:
            return
        self.answers += 1
        if time.monotonic() < self.until:
            self.transport.write(self.request)
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.failures += error is not None
        if not self.done.done():
            self.done.set_result(None)


async def _clients(url: str, headers: Mapping[str, str], clients: int, seconds: float) -> Load:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    loop = asyncio.get_running_loop()
    started = time.monotonic()
    opened = [
        await loop.create_connection(
            lambda: _Client(request, started + seconds), parts.hostname, parts.port
        )
        for _ in range(clients)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in opened))
    return Load(
        requests=sum(protocol.answers for _, protocol in opened),
        seconds=time.monotonic() - started,
        failures=sum(protocol.failures for _, protocol in opened),
    )


def _main() -> None:
    import uvloop

    url, headers, clients, seconds = json.loads(sys.stdin.read())
    load = uvloop.run(_clients(url, headers, clients, seconds))
    sys.stdout.write(
        json.dumps({"requests": load.requests, "seconds": load.seconds, "failures": load.failures})
    )


if __name__ == "__main__":
    _main()
