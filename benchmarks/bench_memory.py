"""Memory and CPU of serving 10,000 restaurants: ORM objects for every request, and this product.

Run: `make bench-memory`; `python -m benchmarks.bench_memory docs/images/memory.svg` draws the
chart of the README as well. One way after the other in one run, for bounded time, the server on
one core and the clients on the other: first 4 clients, for CPU a request, then 16, for memory and
latency. Peak is the kernel's VmHWM of the server.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil

from benchmarks import old_way
from benchmarks.kept_postgres import kept_postgres
from benchmarks.large_snapshot import publish_users
from benchmarks.load import require_generator, run_load
from benchmarks.measured_process import cpu_seconds, peak_rss_mb
from benchmarks.memory_chart import draw
from shared.settings import load_settings
from shared.snapshot.opening import open_store
from tests.services.children import unused_port, wait_until
from tests.services.processes import REPOSITORY, start_serve

FEW_CLIENTS = 4  # so that few requests are unfinished when the CPU is read
CLIENTS = 16
OLD_SECONDS = 20.0
NEW_SECONDS = 4.0
USERS = 100_000
SERVER_CORE, CLIENT_CORE = 0, 1


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    idle_mb: float
    peak_mb: float
    per_second: float
    cpu_us: float
    p99_ms: float
    failures: int


def main() -> None:
    require_generator()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tastematch-bench-") as name:
        with kept_postgres(Path(name)) as server:
            url = server.create_database()
            rows += _old(url, "postgresql+asyncpg", "ORM, PostgreSQL (asyncpg)")
        rows += _old(f"sqlite:///{name}/old.db", "sqlite+aiosqlite", "ORM, SQLite (aiosqlite)")
        rows += _new(Path(name))
    print(
        f"{old_way.RESTAURANTS:,} restaurants with descriptions of {old_way.DESCRIPTION_BYTES:,} "
        f"bytes; CPU with {FEW_CLIENTS} clients, all else with {CLIENTS}"
    )
    print(
        f"{'':<30}{'idle MB':>9}{'peak MB':>9}{'req/s':>10}{'CPU us':>11}{'p99 ms':>9}{'failed':>8}"
    )
    for row in rows:
        print(
            f"{row.name:<30}{row.idle_mb:>9.0f}{row.peak_mb:>9.0f}{row.per_second:>10,.1f}"
            f"{row.cpu_us:>11,.0f}{row.p99_ms:>9,.1f}{row.failures:>8}"
        )
    cheapest = min(row.cpu_us for row in rows if row.name.startswith("ORM"))
    metadata = next(row for row in rows if row.name.endswith("zstd"))
    print(
        f"CPU of a metadata request: {cheapest / metadata.cpu_us:,.0f} times less than ORM objects"
    )
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(draw([(row.name, row.peak_mb) for row in rows]))


def _old(url: str, driver: str, name: str) -> Iterator[Row]:
    old_way.fill(url.replace("postgresql:", "postgresql+psycopg2:", 1))
    port = unused_port()
    address = f"http://127.0.0.1:{port}"
    target = url.replace(url.partition(":")[0], driver, 1)
    with _process("benchmarks.old_way", str(port), target) as process:
        wait_until(partial(_is_up, f"{address}/health"), timeout_seconds=30, describe="the old way")
        yield _measured(
            name, f"{address}/restaurants", process.pid, headers={}, seconds=OLD_SECONDS
        )


def _new(folder: Path) -> Iterator[Row]:
    environment = {"TASTEMATCH_DATA_DIR": str(folder / "data")}
    store = open_store(load_settings(environment))
    publish_users(store, USERS)
    store.close()
    for coding in ("zstd", "identity"):
        with start_serve(env=environment) as serving:
            url = f"{serving.url}/api/restaurants/metadata"
            wait_until(partial(_is_up, url), timeout_seconds=30, describe="a snapshot")
            yield _measured(
                f"TasteMatch, {coding}",
                url,
                serving.child.pid,
                headers={"Accept-Encoding": coding},
                seconds=NEW_SECONDS,
            )


def _measured(name: str, url: str, pid: int, *, headers: dict[str, str], seconds: float) -> Row:
    psutil.Process(pid).cpu_affinity([SERVER_CORE])
    idle, before = peak_rss_mb(pid), cpu_seconds(pid)
    ask = partial(run_load, url, headers=headers, seconds=seconds, core=CLIENT_CORE)
    few = ask(clients=FEW_CLIENTS)
    used = cpu_seconds(pid) - before
    many = ask(clients=CLIENTS)
    return Row(
        name,
        idle_mb=idle,
        peak_mb=peak_rss_mb(pid),
        per_second=many.per_second,
        cpu_us=used / few.requests * 1e6,
        p99_ms=many.p99_ms,
        failures=few.failures + many.failures,
    )


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def _process(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=REPOSITORY)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


if __name__ == "__main__":
    main()
