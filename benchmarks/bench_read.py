"""Reads of recommendations and metadata against a bare ASGI hello on the same uvicorn.

Run: `make bench-read`. One core serves, the other asks; rounds of all addresses are interleaved,
and figures are medians of the rounds. CPU is the server process's own, from /proc. The ratio of
requests/s to hello's is what may be compared between machines. The number of users and of rounds
may be given: `python -m benchmarks.bench_read 100000 9`.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.load import generator, run_load
from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from shared.tokens import issue_user_token
from tests.services.children import unused_port, wait_until
from tests.services.processes import REPOSITORY, start_serve
from tests.services.snapshots import SnapshotSpec, UserSpec, publish_snapshot

RESTAURANTS = 10_000
USERS = 20_000
CITIES = 20
HEAD = 60
ROUNDS = 5
SECONDS = 2.0
CLIENTS = 16
SERVER_CORE, CLIENT_CORE = 0, 1
MIN_RATIO = 0.35
MAX_PSS_MB = 90.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Target:
    """One address, and what its rounds gave."""

    name: str
    url: str
    pid: int
    headers: dict[str, str] = field(default_factory=dict)
    per_second: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    failures: int = 0


def main() -> None:
    given = [int(text) for text in sys.argv[1:]]
    users = given[0] if given else USERS
    rounds = given[1] if len(given) > 1 else ROUNDS
    with tempfile.TemporaryDirectory(prefix="tastematch-bench-") as name:
        environment = {"TASTEMATCH_DATA_DIR": name}
        settings = load_settings(environment)
        _publish(settings, users)
        with _hello() as (hello_url, hello_pid), start_serve(env=environment) as serving:
            psutil.Process(serving.child.pid).cpu_affinity([SERVER_CORE])
            _wait_for_snapshot(serving.url, settings)
            before = _pss_mb(serving.child.pid)
            targets = [
                Target("bare ASGI hello", hello_url, hello_pid),
                *_targets(settings, serving.url, serving.child.pid),
            ]
            for number in range(rounds + 1):  # the first one warms up
                for target in targets:
                    _measure(target, is_kept=number > 0)
            _report(targets, users=users, rounds=rounds)
            after = _pss_mb(serving.child.pid)
            print(f"PSS of the serving process: {before:.1f} MB idle, {after:.1f} MB after")
            print(f"limits: recommendations at least {MIN_RATIO} of hello, PSS {MAX_PSS_MB} MB")


def _publish(settings: Settings, users: int) -> None:
    chance = random.Random(1)
    ids = range(100_000, 100_000 + RESTAURANTS)
    heads = [chance.sample(ids, HEAD) for _ in range(200)]
    specs = [
        UserSpec("personal", f"City {n % CITIES}", head, head[10:], head[:10])
        for n, head in enumerate(heads)
    ]
    store = open_store(settings)
    spec = SnapshotSpec(
        restaurants={i: f"City {i % CITIES}" for i in ids},
        users={n: specs[n % len(specs)] for n in range(1, users + 1)},
        similar={i: chance.sample(ids, 20) for i in ids},
    )
    publish_snapshot(store, spec)
    store.close()


def _targets(settings: Settings, url: str, pid: int) -> list[Target]:
    token = issue_user_token(settings, user_id=7, ttl_seconds=3600, now=time.time())
    assert settings.service_token is not None
    user = {"Authorization": f"Bearer {token}"}
    service = {"Authorization": f"Bearer {settings.service_token.get_secret_value()}"}
    lists, metadata = f"{url}/api/recommendations", f"{url}/api/restaurants/metadata"
    etag = httpx.get(lists, headers=user).headers["etag"]
    zstd = {"Accept-Encoding": "zstd, br, gzip"}
    metadata_etag = httpx.get(metadata, headers=zstd).headers["etag"]
    return [
        Target("/health", f"{url}/health", pid),
        Target("recommendations", lists, pid, user),
        Target("recommendations, 304", lists, pid, user | {"If-None-Match": etag}),
        Target("recommendations of a user", f"{url}/api/users/9/recommendations", pid, service),
        Target("detailed", f"{lists}/detailed", pid, user),
        Target("metadata, zstd", metadata, pid, zstd),
        Target("metadata, 304", metadata, pid, zstd | {"If-None-Match": metadata_etag}),
        Target("metadata, identity", metadata, pid, {"Accept-Encoding": "identity"}),
        Target("popular", f"{url}/api/lists/popular?city=City%201", pid),
    ]


def _measure(target: Target, *, is_kept: bool) -> None:
    before = _cpu_seconds(target.pid)
    load = run_load(
        target.url, headers=target.headers, clients=CLIENTS, seconds=SECONDS, core=CLIENT_CORE
    )
    used = _cpu_seconds(target.pid) - before
    target.failures += load.failures
    if is_kept:
        target.per_second.append(load.per_second)
        target.cpu_us.append(used / load.requests * 1e6)


def _report(targets: list[Target], *, users: int, rounds: int) -> None:
    floor = statistics.median(targets[0].per_second)
    floor_cpu = statistics.median(targets[0].cpu_us)
    print(
        f"{users:,} users, {RESTAURANTS:,} restaurants; {CLIENTS} connections by {generator()}, "
        f"{rounds} rounds of {SECONDS:g} s"
    )
    print(f"{'':<28}{'req/s':>10}{'of hello':>10}{'CPU us':>9}{'x hello':>9}{'failed':>8}")
    for target in targets:
        per_second = statistics.median(target.per_second)
        cpu_us = statistics.median(target.cpu_us)
        print(
            f"{target.name:<28}{per_second:>10,.0f}{per_second / floor:>10.2f}"
            f"{cpu_us:>9.1f}{cpu_us / floor_cpu:>9.2f}{target.failures:>8}"
        )


@contextmanager
def _hello() -> Iterator[tuple[str, int]]:
    port = unused_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.hello", str(port)],
        cwd=REPOSITORY,
    )
    psutil.Process(process.pid).cpu_affinity([SERVER_CORE])
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_until(lambda: _answers(url), timeout_seconds=20, describe="the hello server")
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _wait_for_snapshot(url: str, settings: Settings) -> None:
    address = f"{url}/api/restaurants/metadata"
    wait_until(lambda: _answers(address), timeout_seconds=60, describe="the snapshot")


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel tells no PSS")


if __name__ == "__main__":
    main()
