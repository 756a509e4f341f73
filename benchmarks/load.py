"""Closed-loop load on one address, made by wrk.

The clients run in a process of their own, pinned to one core, and are bounded in number and time.
wrk is a package of most systems (`apt-get install wrk`, `dnf install wrk`, `brew install wrk`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_CLIENTS = 512
MAX_SECONDS = 60.0
ANSWER_SECONDS = 60

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True, slots=True)
class Load:
    """`output` is wrk's own report, with what a script added to it."""

    requests: int
    seconds: float
    failures: int
    p99_ms: float
    output: str

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def require_generator() -> None:
    """Ends the benchmark, in one line, where there is no wrk."""
    if shutil.which("wrk") is None:
        sys.exit("this benchmark needs wrk on PATH: apt-get, dnf or brew install wrk")


def run_load(
    url: str,
    *,
    headers: Mapping[str, str],
    clients: int,
    seconds: float,
    core: int,
    script: Path | None = None,
) -> Load:
    """Asks for one address again and again over keep-alive connections.

    `script` is a Lua file for wrk that may make the requests and look at the answers.
    """
    assert clients <= MAX_CLIENTS, "the load is bounded"
    assert seconds <= MAX_SECONDS, "in time too"
    words = ["wrk", "-t1", f"-c{clients}", f"-d{round(seconds)}s", "--latency"]
    words += ["--timeout", f"{ANSWER_SECONDS}s"]
    words += [] if script is None else ["-s", str(script)]
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    done = subprocess.run(
        [*words, url],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 2 * ANSWER_SECONDS,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    total = re.search(r"(\d+) requests in ([0-9.]+)(m?s|m),", done.stdout)
    slowest = re.search(r"99%\s+([0-9.]+)(us|ms|s|m)", done.stdout)
    assert total is not None, done.stdout
    assert slowest is not None, done.stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    broken = re.findall(r"(?:connect|read|write|timeout) (\d+)", done.stdout)
    return Load(
        requests=int(total[1]),
        seconds=float(total[2]) * _UNITS[total[3]] / 1e3,
        failures=sum(map(int, broken)) + (0 if failed is None else int(failed[1])),
        p99_ms=float(slowest[1]) * _UNITS[slowest[2]],
        output=done.stdout,
    )
