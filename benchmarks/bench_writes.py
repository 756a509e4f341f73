"""Orders over HTTP in one API process: placed a second, lost by a kill, and pages against the ORM.

Run: `make bench-writes`. One core serves, the other asks and runs the database; rounds are
interleaved and figures are medians. PostgreSQL syncs each commit to the disk. The number of rounds
may be given: `python -m benchmarks.bench_writes 9`.
"""

from __future__ import annotations

import contextlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
from sqlalchemy import func, insert, select

from api.routes.orders import ORDERS_PATH
from benchmarks.hello import answers
from benchmarks.load import require_generator, run_load
from benchmarks.measured_process import cpu_seconds
from benchmarks.order_load import placing
from benchmarks.orm_orders import ORM_PATH
from shared.db.engine import sync_engine
from shared.db.migration import migrate
from shared.db.models import Order, Restaurant, User
from shared.settings import Settings, load_settings
from shared.tokens import issue_user_token
from tests.services.children import unused_port, wait_until
from tests.services.postgres import PostgresServer
from tests.services.processes import REPOSITORY, start_serve

USERS = 10_000
RESTAURANTS = 1_000
ORDERS_A_USER = 40
READERS = 1_000
ROUNDS = 5
SECONDS = 2.0
SERVER_CORE, CLIENT_CORE = 0, 1
KILL_SECONDS = 2.0
KILLS = 5


@dataclass(slots=True)
class Figures:
    per_second: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    failures: int = 0

    def line(self, name: str) -> str:
        medians = (statistics.median(v) for v in (self.per_second, self.cpu_us, self.p99_ms))
        per_second, cpu_us, p99_ms = medians
        return f"{name:<44}{per_second:>9,.0f}{cpu_us:>9.0f}{p99_ms:>9.1f}{self.failures:>8}"


def main() -> None:
    require_generator()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(f"{rounds} rounds of {SECONDS:g} s by wrk")
    print(f"{'':<44}{'req/s':>9}{'CPU us':>9}{'p99 ms':>9}{'failed':>8}")
    for name, database in (("SQLite", _sqlite), ("PostgreSQL", _postgres)):
        with (
            tempfile.TemporaryDirectory(prefix="tastematch-bench-") as folder,
            database(Path(folder)) as settings,
        ):
            _fill(settings)
            _measure_placing(name, settings, rounds)
            _measure_pages(name, settings, rounds)
            _measure_kills(name, settings)


@contextlib.contextmanager
def _sqlite(folder: Path) -> Iterator[Settings]:
    yield load_settings({"TASTEMATCH_DATA_DIR": str(folder)})


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[Settings]:
    server = PostgresServer(settings={"fsync": "on", "full_page_writes": "on"})
    server.data_folder.rmdir()  # which may be in memory
    server.data_folder = Path(tempfile.mkdtemp(prefix="tastematch-bench-", dir="/tmp"))
    server.start()
    psutil.Process(server.child.pid).cpu_affinity([CLIENT_CORE])
    try:
        url = server.create_database()
        yield load_settings({"TASTEMATCH_DATA_DIR": str(folder), "DATABASE_URL": url})
    finally:
        server.stop()


def _fill(settings: Settings) -> None:
    migrate(settings)
    chance = random.Random(1)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    engine = sync_engine(settings)
    with engine.begin() as connection:
        names = [{"id": n, "name": f"Restaurant {n}"} for n in range(1, RESTAURANTS + 1)]
        connection.execute(insert(Restaurant), names)
        connection.execute(insert(User), [{"id": n} for n in range(1, USERS + 1)])
        rows = [
            {
                "id": user * 1_000 + n,
                "user_id": user,
                "restaurant_id": chance.randint(1, RESTAURANTS),
                "order_date": start + timedelta(minutes=chance.randrange(400_000)),
                "total_amount": 20.5,
                "rating": 4.0,
            }
            for user in range(1, READERS + 1)
            for n in range(ORDERS_A_USER)
        ]
        connection.execute(insert(Order), rows)
    engine.dispose()


def _environment(settings: Settings) -> dict[str, str]:
    return {
        "TASTEMATCH_DATA_DIR": str(settings.data_dir),
        "DATABASE_URL": settings.sqlalchemy_url.render_as_string(hide_password=False),
        "TASTEMATCH_LOG_LEVEL": "WARNING",
    }


def _measure_placing(name: str, settings: Settings, rounds: int) -> None:
    with start_serve(env=_environment(settings)) as serving:
        pid = serving.child.pid
        psutil.Process(pid).cpu_affinity([SERVER_CORE])
        url = f"{serving.url}/api/orders"
        cases = [(clients, keyed) for keyed in (False, True) for clients in (1, 16, 64)]
        figures = {case: Figures() for case in cases}
        script = settings.data_dir / "orders.lua"
        before = _count(settings)
        answered = 0
        for number in range(rounds + 1):
            for case, kept in figures.items():
                clients, keyed = case
                placing(settings, script, users=USERS, restaurants=RESTAURANTS, keyed=keyed)
                answered += _round(kept, url, pid, {}, clients, script, is_kept=number > 0)
        for (clients, keyed), kept in figures.items():
            how = "with keys, " if keyed else ""
            print(kept.line(f"{name}: POST, {how}{clients} at once"))
        written = _count(settings) - before
        print(f"{name}: {answered:,} answered, {written:,} in the database")
        assert written >= answered


def _measure_pages(name: str, settings: Settings, rounds: int) -> None:
    user = READERS // 2
    token = issue_user_token(settings, user_id=user, ttl_seconds=3600, now=time.time())
    headers = {"Authorization": f"Bearer {token}"}
    port = unused_port()
    words = [sys.executable, "-m", "benchmarks.orm_orders", str(port)]
    words += [_environment(settings)["DATABASE_URL"], str(settings.data_dir)]
    process = subprocess.Popen(words, cwd=REPOSITORY)
    try:
        wait_until(
            lambda: answers(f"http://127.0.0.1:{port}/health"),
            timeout_seconds=20,
            describe="the application",
        )
        psutil.Process(process.pid).cpu_affinity([SERVER_CORE])
        ours, theirs = (f"http://127.0.0.1:{port}{path}" for path in (ORDERS_PATH, ORM_PATH))
        assert _items(ours, headers) == _items(theirs, headers)
        figures = {ours: Figures(), theirs: Figures()}
        for number in range(rounds + 1):
            for url, kept in figures.items():
                _round(kept, url, process.pid, headers, 8, None, is_kept=number > 0)
        print(figures[ours].line(f"{name}: GET, a page of 20"))
        print(figures[theirs].line(f"{name}: the same by the ORM"))
        ratio = statistics.median(figures[ours].cpu_us) / statistics.median(figures[theirs].cpu_us)
        print(f"{name}: CPU of a page is {ratio:.2f} of the ORM's")
    finally:
        process.terminate()
        process.wait(10)


def _measure_kills(name: str, settings: Settings) -> None:
    """The server is killed under load; every order that was answered must be in the database."""
    answered = missing = 0
    for _ in range(KILLS):
        script = placing(
            settings,
            settings.data_dir / "kill.lua",
            users=USERS,
            restaurants=RESTAURANTS,
            keyed=True,
            printed=True,
        )
        with start_serve(env=_environment(settings)) as serving:
            timer = threading.Timer(KILL_SECONDS, serving.child.kill)
            timer.start()
            load = run_load(
                f"{serving.url}/api/orders",
                headers={},
                clients=16,
                seconds=KILL_SECONDS + 1,
                core=CLIENT_CORE,
                script=script,
            )
            timer.join()
        ids = {int(text) for text in re.findall(r"PLACED (\d+)", load.output)}
        answered += len(ids)
        missing += len(ids - _ids(settings))
    print(f"{name}: killed {KILLS} times: {missing} of {answered:,} confirmed orders are missing")


def _round(
    kept: Figures,
    url: str,
    pid: int,
    headers: dict[str, str],
    clients: int,
    script: Path | None,
    *,
    is_kept: bool,
) -> int:
    before = cpu_seconds(pid)
    load = run_load(
        url, headers=headers, clients=clients, seconds=SECONDS, core=CLIENT_CORE, script=script
    )
    kept.failures += load.failures
    if is_kept:
        kept.per_second.append(load.per_second)
        kept.cpu_us.append((cpu_seconds(pid) - before) / load.requests * 1e6)
        kept.p99_ms.append(load.p99_ms)
    return load.requests - load.failures


def _count(settings: Settings) -> int:
    engine = sync_engine(settings)
    with engine.connect() as connection:
        count = connection.execute(select(func.count()).select_from(Order)).scalar_one()
    engine.dispose()
    return count


def _ids(settings: Settings) -> set[int]:
    engine = sync_engine(settings)
    with engine.connect() as connection:
        ids = set(connection.execute(select(Order.id)).scalars())
    engine.dispose()
    return ids


def _items(url: str, headers: dict[str, str]) -> list[object]:
    items: list[object] = httpx.get(url, headers=headers).raise_for_status().json()["items"]
    assert len(items) == 20
    return items


if __name__ == "__main__":
    main()
