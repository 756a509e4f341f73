"""What reads cost under other conditions: more users, more connections, a snapshot that changes.

Parts of `bench_read.py`; each prints its own lines.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil

from benchmarks.hello import running_hello
from benchmarks.large_snapshot import publish_users, restaurant_ids
from benchmarks.load import run_load
from benchmarks.many_tokens import rotating_tokens
from benchmarks.measured_process import cpu_seconds, pss_mb
from shared.settings import load_settings
from shared.snapshot.opening import open_store
from shared.snapshot.store import SnapshotStore
from shared.tokens import issue_user_token
from tests.services.children import wait_until
from tests.services.processes import REPOSITORY, start_serve

CONNECTIONS = 500
SIZES = (10_000, 100_000, 1_000_000)
CLIENTS = 16
SERVER_CORE, CLIENT_CORE = 0, 1
SWAPS = 5
SWAP_SECONDS = 5.0

# Counts the answers of every (version, list): each version must have one list and no other.
_WATCHING = """
local seen = {}
function setup(thread) thread:set("id", 0) end
function response(status, headers, body)
  local version = headers["x-snapshot-version"] or "none"
  if status ~= 200 then version = "status " .. status end
  local key = version .. " " .. body
  if not seen[key] then
    seen[key] = true
    print("ANSWER " .. key)
  end
end
"""


def measure_connections(url: str, pid: int, headers: dict[str, str]) -> None:
    """Memory while 500 clients ask at once, against 16."""
    lists = f"{url}/api/recommendations"
    peaks: dict[int, float] = {}
    for clients in (CLIENTS, CONNECTIONS):
        with ThreadPoolExecutor() as pool:
            asking = pool.submit(
                run_load, lists, headers=headers, clients=clients, seconds=4, core=CLIENT_CORE
            )
            samples = [pss_mb(pid)]
            while not wait([asking], timeout=0.25).done:
                samples.append(pss_mb(pid))
            load = asking.result()
        peaks[clients] = max(samples)
    print(
        f"{CONNECTIONS} connections: PSS {peaks[CONNECTIONS] - peaks[CLIENTS]:+.1f} MB against "
        f"{CLIENTS}, {load.failures} failed of {load.requests:,}, p99 {load.p99_ms:.1f} ms"
    )


def measure_growth(rounds: int) -> None:
    """CPU a request with 10,000, 100,000 and 1,000,000 users, 1,000 of them asking in turn."""
    with ExitStack() as stack:
        _, hello_pid = hello = stack.enter_context(running_hello(core=SERVER_CORE))
        targets: list[tuple[str, str, int, Path | None]] = [("hello", hello[0], hello_pid, None)]
        for users in SIZES:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            environment = {"TASTEMATCH_DATA_DIR": str(folder)}
            settings = load_settings(environment)
            store = open_store(settings)
            publish_users(store, users)
            store.close()
            serving = stack.enter_context(start_serve(env=environment))
            psutil.Process(serving.child.pid).cpu_affinity([SERVER_CORE])
            _wait(serving.url)
            script = rotating_tokens(settings, folder / "tokens.lua", users=users)
            url = f"{serving.url}/api/recommendations"
            targets.append((f"{users:,} users", url, serving.child.pid, script))
        cpu: dict[str, list[float]] = {name: [] for name, *_ in targets}
        for number in range(rounds + 1):
            for name, url, pid, script in targets:
                before = cpu_seconds(pid)
                load = run_load(
                    url, headers={}, clients=CLIENTS, seconds=2, core=CLIENT_CORE, script=script
                )
                if number:
                    cpu[name].append((cpu_seconds(pid) - before) / load.requests * 1e6)
    medians = {name: statistics.median(values) for name, values in cpu.items()}
    fewest = medians[f"{SIZES[0]:,} users"]
    for users in SIZES:
        used = medians[f"{users:,} users"]
        print(
            f"{users:>9,} users: {used:.1f} us CPU a request, {used / fewest:.2f} of the fewest, "
            f"{used / medians['hello']:.2f} x hello"
        )


def measure_mirror(users: int) -> None:
    """How long a fresh process takes to fetch and map a snapshot, and what memory that costs."""
    with tempfile.TemporaryDirectory() as name:
        store = open_store(load_settings({"TASTEMATCH_DATA_DIR": name}))
        publish_users(store, users)
        store.close()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.mirror", name],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
    print(f"copy of {users:,} users: {done.stdout.strip()}")


def measure_swap(users: int) -> None:
    """Answers and latency while other snapshots are fetched and swapped in, under load."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {"TASTEMATCH_DATA_DIR": name, "TASTEMATCH_LOG_LEVEL": "WARNING"}
        settings = load_settings(environment)
        store = open_store(settings)
        first = publish_users(store, users)
        others = range(2, 2 + SWAPS)
        manifests = [publish_users(store, users, seed=n, activate=False) for n in others]
        seeds = {manifest.version: n for n, manifest in enumerate([first, *manifests], 1)}
        token = issue_user_token(settings, user_id=7, ttl_seconds=3600, now=time.time())
        script = folder / "watch.lua"
        script.write_text(_WATCHING)
        with start_serve(env=environment) as serving:
            psutil.Process(serving.child.pid).cpu_affinity([SERVER_CORE])
            _wait(serving.url)
            url = f"{serving.url}/api/recommendations"
            headers = {"Authorization": f"Bearer {token}"}
            steady: list[float] = []
            during: list[float] = []
            answers: set[tuple[str, str]] = set()
            failures = 0
            for manifest in manifests:
                for version, kept in ((None, steady), (manifest.version, during)):
                    timer = threading.Timer(1.0, _activate, (store, version))
                    timer.start()
                    load = run_load(
                        url,
                        headers=headers,
                        clients=CLIENTS,
                        seconds=SWAP_SECONDS,
                        core=CLIENT_CORE,
                        script=script,
                    )
                    timer.join()
                    kept.append(load.p99_ms)
                    failures += load.failures
                    seen = set(re.findall(r"ANSWER (\S+) (.*)", load.output))
                    assert version is None or version in dict(seen), "it came within these seconds"
                    answers |= seen
        store.close()
    mixed = sum(
        version in seeds
        and body != f"[{','.join(map(str, restaurant_ids(7, seed=seeds[version])))}]"
        for version, body in answers
    )
    print(
        f"swap of {users:,} users under load, {len(manifests)} times: {failures} failed, {mixed} "
        f"mixed answers of {len(answers)} different ones; p99 {statistics.median(during):.2f} ms "
        f"in the {SWAP_SECONDS:g} s of a swap, {statistics.median(steady):.2f} ms before: "
        f"{statistics.median(during) / statistics.median(steady):.1f} x"
    )


def _activate(store: SnapshotStore, version: str | None) -> None:
    if version is not None:
        store.activate(version, pin=False)


def _wait(url: str) -> None:
    wait_until(
        lambda: httpx.get(f"{url}/api/restaurants/metadata").status_code == 200,
        timeout_seconds=60,
        describe="the snapshot",
    )
