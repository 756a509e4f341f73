"""Reads of recommendations and metadata against a bare ASGI hello on the same uvicorn.

Run: `make bench-read`. One core serves, the other asks; rounds of all addresses are interleaved,
and figures are medians of the rounds. CPU is the server process's own, from /proc. The ratio of
requests/s to hello's is what may be compared between machines. The number of users and of rounds
may be given: `python -m benchmarks.bench_read 100000 9`. After the table: memory, what a request
costs with more users, 500 connections, a snapshot that is fetched, and one that is swapped in
under load.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks import read_conditions
from benchmarks.hello import running_hello
from benchmarks.large_snapshot import RESTAURANTS, publish_users
from benchmarks.load import require_generator, run_load
from benchmarks.many_tokens import rotating_tokens
from benchmarks.measured_process import cpu_seconds, pss_mb
from shared.db.migration import migrate
from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from shared.tokens import issue_user_token
from tests.services.children import wait_until
from tests.services.processes import start_serve

USERS = 1_000_000
ROUNDS = 5
SECONDS = 2.0
CLIENTS = 16
SERVER_CORE, CLIENT_CORE = 0, 1


@dataclass(slots=True)
class Target:
    """One address, and what its rounds gave."""

    name: str
    url: str
    pid: int
    headers: dict[str, str] = field(default_factory=dict)
    script: Path | None = None
    per_second: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    requests: int = 0
    failures: int = 0


def main() -> None:
    require_generator()
    given = [int(text) for text in sys.argv[1:]]
    users = given[0] if given else USERS
    rounds = given[1] if len(given) > 1 else ROUNDS
    with tempfile.TemporaryDirectory(prefix="tastematch-bench-") as name:
        environment = {"TASTEMATCH_DATA_DIR": name}
        settings = load_settings(environment)
        store = open_store(settings)
        publish_users(store, users)
        store.close()
        migrate(settings)
        with (
            running_hello(core=SERVER_CORE) as (hello_url, hello_pid),
            start_serve(env=environment) as serving,
        ):
            pid = serving.child.pid
            psutil.Process(pid).cpu_affinity([SERVER_CORE])
            wait_for_snapshot(serving.url)
            before = pss_mb(pid)
            targets = [
                Target("bare ASGI hello", hello_url, hello_pid),
                *_targets(settings, serving.url, pid, Path(name), users),
            ]
            for number in range(rounds + 1):  # the first one warms up
                for target in targets:
                    _measure(target, is_kept=number > 0)
            _report(targets, users=users, rounds=rounds)
            asked = sum(target.requests for target in targets[1:])
            after = pss_mb(pid)
            httpx.get(f"{serving.url}/ready").raise_for_status()
            with_probe = pss_mb(pid)
            httpx.get(f"{serving.url}/api/restaurants").raise_for_status()
            print(
                f"PSS of the serving process with {users:,} users: {before:.1f} MB idle, "
                f"{after:.1f} MB after {asked:,} requests, {with_probe:.1f} MB after /ready, "
                f"{pss_mb(pid):.1f} MB after a request that needs the database"
            )
            read_conditions.measure_connections(serving.url, pid, targets[2].headers)
    read_conditions.measure_growth(rounds)
    read_conditions.measure_mirror(users)
    read_conditions.measure_swap(users)


def wait_for_snapshot(url: str) -> None:
    address = f"{url}/api/restaurants/metadata"
    wait_until(
        lambda: httpx.get(address).status_code == 200,
        timeout_seconds=60,
        describe="the snapshot",
    )


def _targets(settings: Settings, url: str, pid: int, folder: Path, users: int) -> list[Target]:
    token = issue_user_token(settings, user_id=7, ttl_seconds=3600, now=time.time())
    assert settings.service_token is not None
    user = {"Authorization": f"Bearer {token}"}
    service = {"Authorization": f"Bearer {settings.service_token.get_secret_value()}"}
    lists, metadata = f"{url}/api/recommendations", f"{url}/api/restaurants/metadata"
    filtered = f"{lists}?city=City%201&price_range=2"
    etag = httpx.get(lists, headers=user).headers["etag"]
    zstd = {"Accept-Encoding": "zstd, br, gzip"}
    metadata_etag = httpx.get(metadata, headers=zstd).headers["etag"]
    popular = httpx.get(f"{url}/api/lists/popular").json()
    many = rotating_tokens(settings, folder / "tokens.lua", users=users)
    return [
        Target("/health", f"{url}/health", pid),
        Target("recommendations", lists, pid, user),
        Target("recommendations, 1,000 users", lists, pid, script=many),
        Target("recommendations, 304", lists, pid, user | {"If-None-Match": etag}),
        Target("recommendations, filtered", filtered, pid, user),
        Target("recommendations of a user", f"{url}/api/users/9/recommendations", pid, service),
        Target("detailed", f"{lists}/detailed", pid, user),
        Target("metadata, zstd", metadata, pid, zstd),
        Target("metadata, 304", metadata, pid, zstd | {"If-None-Match": metadata_etag}),
        Target("metadata, identity", metadata, pid, {"Accept-Encoding": "identity"}),
        Target("popular", f"{url}/api/lists/popular?city=City%201", pid),
        Target("similar", f"{url}/api/restaurants/{popular[0]}/similar", pid),
    ]


def _measure(target: Target, *, is_kept: bool) -> None:
    before = cpu_seconds(target.pid)
    load = run_load(
        target.url,
        headers=target.headers,
        clients=CLIENTS,
        seconds=SECONDS,
        core=CLIENT_CORE,
        script=target.script,
    )
    used = cpu_seconds(target.pid) - before
    target.failures += load.failures
    target.requests += load.requests
    if is_kept:
        target.per_second.append(load.per_second)
        target.cpu_us.append(used / load.requests * 1e6)
        target.p99_ms.append(load.p99_ms)


def _report(targets: list[Target], *, users: int, rounds: int) -> None:
    floor = statistics.median(targets[0].per_second)
    floor_cpu = statistics.median(targets[0].cpu_us)
    print(
        f"{users:,} users, {RESTAURANTS:,} restaurants; {CLIENTS} connections by wrk, "
        f"{rounds} rounds of {SECONDS:g} s"
    )
    print(
        f"{'':<30}{'req/s':>9}{'of hello':>10}{'CPU us':>9}{'x hello':>9}{'p99 ms':>8}{'failed':>8}"
    )
    for target in targets:
        per_second = statistics.median(target.per_second)
        cpu_us = statistics.median(target.cpu_us)
        print(
            f"{target.name:<30}{per_second:>9,.0f}{per_second / floor:>10.2f}"
            f"{cpu_us:>9.1f}{cpu_us / floor_cpu:>9.2f}"
            f"{statistics.median(target.p99_ms):>8.2f}{target.failures:>8}"
        )


if __name__ == "__main__":
    main()
