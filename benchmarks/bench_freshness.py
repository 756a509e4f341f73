"""How soon lists follow orders on two replicas, and what a refresh costs the worker.

Run: `make bench-freshness`. Once with arq, PostgreSQL and Redis, once embedded; seconds of load
may be given: `python -m benchmarks.bench_freshness 30`. Orders come at a steady rate, in turn to
both replicas, each from a restaurant that is new to its user, and are followed until `for_you`
differs: only the worker's record does that. CPU is the kernel's count of the
refresher, its looks for work included, and of the worker beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.asker import Asker
from benchmarks.measured_process import cpu_seconds
from benchmarks.shop_generator import Shop, Size
from benchmarks.shop_loading import write_folder
from shared.settings import Settings, load_settings
from shared.tokens import issue_user_token
from tests.services.postgres import PostgresServer
from tests.services.processes import run_tastematch, start_serve, start_worker
from tests.services.redis import RedisServer

SIZE = Size(10_000, 3_000, 100_000)
SECONDS = 30.0
ORDERS_A_SECOND = 20
POLL_SECONDS = 0.05
GIVE_UP_SECONDS = 20.0
CLOSURES = 10
SERVICE_TOKEN = "service-token-of-a-benchmark-of-fresh-lists"

Env = dict[str, str]


@dataclass(slots=True)
class Figures:
    """Seconds from the answer to the write until a replica shows it."""

    own: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)
    lost: int = 0
    refresher_ms: float = 0.0
    worker_ms: float = 0.0


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    print(f"{ORDERS_A_SECOND} orders/s for {seconds:g} s, two replicas, {SIZE.users:,} users")
    print(f"{'':<60}{'p50 s':>8}{'p95 s':>8}{'max s':>8}")
    for name, shop in (("arq", _machines), ("embedded", _one_machine)):
        with (
            tempfile.TemporaryDirectory(prefix="tastematch-bench-") as folder,
            shop(Path(folder)) as environments,
        ):
            figures = _measured(Path(folder), environments, seconds)
        _print(name, figures)


@contextlib.contextmanager
def _machines(folder: Path) -> Iterator[tuple[Env, Env]]:
    """Of a worker and a replica, and of the other replica."""
    redis, postgres = RedisServer(), PostgresServer()
    with contextlib.ExitStack() as stack:
        stack.callback(redis.stop)
        redis.start()
        stack.callback(postgres.stop)
        postgres.start()
        env = _common() | {"DATABASE_URL": postgres.create_database(), "REDIS_URL": redis.url()}
        yield tuple(env | {"TASTEMATCH_DATA_DIR": str(folder / name)} for name in ("a", "b"))  # type: ignore[misc]


@contextlib.contextmanager
def _one_machine(folder: Path) -> Iterator[tuple[Env, Env]]:
    env = _common() | {"TASTEMATCH_DATA_DIR": str(folder / "data")}
    yield env, env


def _common() -> Env:
    return {
        "TASTEMATCH_PRECOMPUTE_CRON": "",
        "TASTEMATCH_SERVICE_TOKEN": SERVICE_TOKEN,
        "TASTEMATCH_JWT_SECRET": "a secret that both replicas share, of 32 bytes and more",
        "TASTEMATCH_LOG_LEVEL": "WARNING",
    }


def _measured(folder: Path, environments: tuple[Env, Env], seconds: float) -> Figures:
    env = environments[0]
    write_folder(Shop(SIZE), folder / "shop")
    for words in (("migrate",), ("import", folder / "shop"), ("precompute",)):
        done = run_tastematch(*words, env=env, timeout_seconds=300)
        assert done.returncode == 0, done.stderr
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(start_worker(env=env | {"TASTEMATCH_LOG_LEVEL": "INFO"}))
        ports = [stack.enter_context(start_serve(env=each)).port for each in environments]
        return asyncio.run(_load(load_settings(env), ports, worker.pid, seconds))


async def _load(settings: Settings, ports: Sequence[int], worker: int, seconds: float) -> Figures:
    figures = Figures()
    async with contextlib.AsyncExitStack() as stack:
        askers = [
            [await stack.enter_async_context(Asker(port, SERVICE_TOKEN)) for port in ports]
            for _ in range(4)
        ]
        await _warm(settings, askers[0])
        before = _worker_cpu(worker)
        chance, started, watching = random.Random(7), time.monotonic(), []
        users = chance.sample(range(1, SIZE.users + 1), round(seconds * ORDERS_A_SECOND))
        for number, user in enumerate(users):
            due = started + number / ORDERS_A_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            pair = askers[number % len(askers)]
            own = number % 2
            placed = _placed(settings, pair[own], pair[1 - own], user, figures)
            watching.append(asyncio.create_task(placed))
        await asyncio.gather(*watching)
        after = _worker_cpu(worker)
        for role in ("refresher", "worker"):
            used = 1000 * (after[role] - before[role]) / len(users)
            setattr(figures, f"{role}_ms", used)
        # Connections that were idle meanwhile are closed by the server.
        pair = [await stack.enter_async_context(Asker(port, SERVICE_TOKEN)) for port in ports]
        for number in range(CLOSURES):
            figures.closed.append(await _closed(pair, first=number % 2))
    return figures


async def _warm(settings: Settings, pair: Sequence[Asker]) -> None:
    """Until a first order has started the refresher."""
    await _placed(settings, pair[0], pair[1], SIZE.users, Figures())


async def _placed(
    settings: Settings, own: Asker, other: Asker, user: int, figures: Figures
) -> None:
    path = f"/api/users/{user}/recommendations?limit=50"
    _, discoveries = await own.ask("GET", f"{path}&list=discover")
    _, before = await own.ask("GET", path)
    token = issue_user_token(settings, user_id=user, ttl_seconds=600, now=time.time())
    status, answer = await own.ask(
        "POST", "/api/orders", {"restaurant_id": discoveries[-1]}, token=token
    )
    assert status == 201, answer
    written = time.monotonic()

    async def shown(asker: Asker) -> float | None:
        while (passed := time.monotonic() - written) < GIVE_UP_SECONDS:
            _, ids = await asker.ask("GET", path)
            if ids != before:
                return passed
            await asyncio.sleep(POLL_SECONDS)
        return None

    seconds = await asyncio.gather(shown(own), shown(other))
    if seconds[0] is None or seconds[1] is None:
        figures.lost += 1
        return
    figures.own.append(seconds[0])
    figures.other.append(seconds[1])
    figures.both.append(max(seconds[0], seconds[1]))


async def _closed(pair: Sequence[Asker], *, first: int) -> float:
    """Seconds until both replicas list a restaurant no longer that was closed at one."""
    path = "/api/lists/popular?limit=50"
    _, popular = await pair[0].ask("GET", path)
    status, answer = await pair[first].ask(
        "PATCH", f"/api/restaurants/{popular[0]}", {"is_active": False}
    )
    assert status == 200, answer
    written = time.monotonic()
    for asker in pair:
        while popular[0] in (await asker.ask("GET", path))[1]:
            assert time.monotonic() - written < GIVE_UP_SECONDS, "a replica does not follow"
            await asyncio.sleep(POLL_SECONDS)
    return time.monotonic() - written


def _worker_cpu(worker: int) -> dict[str, float]:
    (refresher,) = psutil.Process(worker).children()
    return {"refresher": cpu_seconds(refresher.pid), "worker": cpu_seconds(worker)}


def _print(name: str, figures: Figures) -> None:
    for what, measured in (
        ("201 -> list of the replica that took the order", figures.own),
        ("201 -> list of the other replica", figures.other),
        ("201 -> both lists (p95 at most 5, better 1)", figures.both),
        ("closed -> gone from both replicas (at most 5)", figures.closed),
    ):
        values = sorted(measured)
        p95 = values[min(len(values) - 1, int(0.95 * len(values)))]
        line = f"{name}: {what}"
        print(f"{line:<60}{statistics.median(values):>8.2f}{p95:>8.2f}{values[-1]:>8.2f}")
    print(
        f"{name}: {len(figures.both)} orders followed, {figures.lost} not; CPU a refreshed user: "
        f"refresher {figures.refresher_ms:.1f} ms (at most 20), worker {figures.worker_ms:.1f} ms"
    )


if __name__ == "__main__":
    main()
