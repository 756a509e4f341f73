"""What an overlay costs the API: memory, reads of refreshed users, restaurants that closed.

Run: `make bench-overlay`. Records are appended as a worker does, by the product's own overlay; no
worker runs. Lists are as long as a precompute makes them. Rounds of all addresses are interleaved
on one core, and figures are medians; `of hello` compares with a bare ASGI hello on the same
uvicorn. How many users are refreshed, and the rounds, may be given:
`python -m benchmarks.bench_overlay 50000 5`.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.bench_read import wait_for_snapshot
from benchmarks.hello import running_hello
from benchmarks.large_snapshot import FIRST_RESTAURANT, RESTAURANTS, publish_users
from benchmarks.load import require_generator, run_load
from benchmarks.many_tokens import rotating_tokens
from benchmarks.measured_process import cpu_seconds, pss_mb
from shared.settings import load_settings
from shared.snapshot.format import SOURCE_PERSONAL, UserLists
from shared.snapshot.manifest import Manifest
from shared.snapshot.opening import open_overlay, open_store
from shared.snapshot.overlay import (
    EXCLUSIONS,
    OverlayWriter,
    RefreshedUser,
    RestaurantExclusion,
    UserExclusion,
    encode_exclusion,
    encode_refreshed,
    restaurant_key,
    user_key,
)
from tests.services.children import wait_until
from tests.services.processes import Serving, start_serve

USERS = 100_000
REFRESHED = 50_000
ROUNDS = 5
SECONDS = 2.0
CLIENTS = 16
SERVER_CORE, CLIENT_CORE = 0, 1
HEAD, ORDERED = 200, 20  # what a record of `lists` holds of each user
HIDDEN, CLOSED = 10, 50
BATCH = 500


@dataclass(slots=True)
class Target:
    name: str
    url: str
    pid: int
    script: Path | None = None
    per_second: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    failures: int = 0


def main() -> None:
    require_generator()
    given = [int(text) for text in sys.argv[1:]]
    refreshed = given[0] if given else REFRESHED
    rounds = given[1] if len(given) > 1 else ROUNDS
    with tempfile.TemporaryDirectory(prefix="tastematch-bench-") as name:
        environment = {"TASTEMATCH_DATA_DIR": name, "TASTEMATCH_LOG_LEVEL": "WARNING"}
        settings = load_settings(environment)
        store, overlay = open_store(settings), open_overlay(settings)
        manifest = publish_users(store, USERS)
        script = rotating_tokens(settings, Path(name) / "tokens.lua", users=USERS // 2)
        with (
            running_hello(core=SERVER_CORE) as (hello_url, hello_pid),
            start_serve(env=environment) as serving,
        ):
            pid = serving.child.pid
            psutil.Process(pid).cpu_affinity([SERVER_CORE])
            wait_for_snapshot(serving.url)
            url = f"{serving.url}/api/recommendations"

            def measured(what: str) -> None:
                targets = [Target("hello", hello_url, hello_pid), Target(what, url, pid, script)]
                _measure(targets, rounds)

            measured("nothing changed")
            idle = pss_mb(pid)
            seconds = _catch_up(overlay, manifest, serving, refreshed)
            print(
                f"{refreshed:,} users refreshed: PSS {idle:.1f} -> {pss_mb(pid):.1f} MB, all of "
                f"them served after {seconds:.1f} s"
            )
            measured(f"{refreshed:,} users refreshed, asked in turn")
            _hide(overlay)
            _wait_for_metric(serving, 'overlay_records{log="exclusions"}', USERS // 100)
            measured(f"and {HIDDEN} hidden restaurants each")
            seconds = _close(overlay, serving)
            print(f"{CLOSED} restaurants closed: gone from the metadata after {seconds:.2f} s")
            measured(f"and {CLOSED} closed restaurants")
            print(f"PSS at the end: {pss_mb(pid):.1f} MB")
        overlay.close()
        store.close()


def _catch_up(
    overlay: OverlayWriter, manifest: Manifest, serving: Serving, refreshed: int
) -> float:
    chance = random.Random(1)
    records = []
    for _ in range(200):
        chosen = chance.sample(range(RESTAURANTS), 2 * HEAD + ORDERED)
        lists = UserLists(chosen[:HEAD], chosen[HEAD : 2 * HEAD], chosen[2 * HEAD :])
        records.append(encode_refreshed(RefreshedUser(1, SOURCE_PERSONAL, 1, lists), width=2))
    began = time.monotonic()
    for first in range(1, refreshed + 1, BATCH):
        users = range(first, min(first + BATCH, refreshed + 1))
        batch = {user_key(user_id): records[user_id % len(records)] for user_id in users}
        overlay.append(manifest.version, batch)
    _wait_for_metric(serving, 'overlay_records{log="lists"}', refreshed)
    return time.monotonic() - began


def _hide(overlay: OverlayWriter) -> None:
    chance = random.Random(2)
    users = list(range(1, USERS // 2, 50))
    for first in range(0, len(users), BATCH):
        batch = {}
        for user_id in users[first : first + BATCH]:
            ids = chance.sample(range(FIRST_RESTAURANT, FIRST_RESTAURANT + RESTAURANTS), HIDDEN)
            batch[user_key(user_id)] = encode_exclusion(UserExclusion(1, False, frozenset(ids)))
        overlay.append(EXCLUSIONS, batch)


def _close(overlay: OverlayWriter, serving: Serving) -> float:
    address = f"{serving.url}/api/restaurants/metadata"
    before = httpx.get(address).headers["etag"]
    record = encode_exclusion(RestaurantExclusion(1))
    ids = range(FIRST_RESTAURANT, FIRST_RESTAURANT + RESTAURANTS, RESTAURANTS // CLOSED)
    began = time.monotonic()
    overlay.append(EXCLUSIONS, {restaurant_key(each): record for each in ids})
    wait_until(
        lambda: httpx.head(address).headers["etag"] != before,
        timeout_seconds=30,
        describe="the metadata without them",
    )
    return time.monotonic() - began


def _measure(targets: list[Target], rounds: int) -> None:
    """The first round warms up."""
    for number in range(rounds + 1):
        for target in targets:
            before = cpu_seconds(target.pid)
            load = run_load(
                target.url,
                headers={},
                clients=CLIENTS,
                seconds=SECONDS,
                core=CLIENT_CORE,
                script=target.script,
            )
            target.failures += load.failures
            if number:
                target.per_second.append(load.per_second)
                used = cpu_seconds(target.pid) - before
                target.cpu_us.append(used / load.requests * 1e6)
    hello, target = targets
    per_second, cpu_us = statistics.median(target.per_second), statistics.median(target.cpu_us)
    print(
        f"{target.name:<45}{per_second:>8,.0f} req/s,"
        f"{per_second / statistics.median(hello.per_second):>5.2f} of hello,"
        f"{cpu_us:>6.1f} us CPU,{cpu_us / statistics.median(hello.cpu_us):>5.2f} x hello, "
        f"{target.failures} failed"
    )


def _wait_for_metric(serving: Serving, name: str, least: int) -> None:
    def is_reached() -> bool:
        text = httpx.get(f"{serving.url}/metrics").text
        found = [line for line in text.splitlines() if line.startswith(f"tastematch_{name} ")]
        return bool(found) and float(found[0].split()[-1]) >= least

    wait_until(is_reached, timeout_seconds=120, describe=name)


if __name__ == "__main__":
    main()
