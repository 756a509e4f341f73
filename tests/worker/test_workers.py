"""Worker processes on real databases and a real Redis: woken, killed, frozen, stopped."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest

from shared.db.migration import migrate
from shared.jobs import cancelling, workers
from shared.jobs.clock import database_time
from shared.jobs.job import LEASE_SECONDS, Job
from tests.services.children import is_alive, unused_port, wait_until
from tests.services.databases import sqlite_address
from tests.services.postgres import PostgresDatabases, PostgresServer
from tests.services.processes import run_tastematch
from tests.services.redis import RedisServer
from tests.worker.shop import NEVER_SECONDS, Shop, shop_on

StartRedis = Callable[..., RedisServer]


@pytest.fixture(params=["embedded", "arq"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """Embedded on SQLite, arq on PostgreSQL and Redis."""
    with contextlib.ExitStack() as stack:
        yield shop_on(request, tmp_path, stack)


@pytest.fixture
def redis_shop(
    private_redis: StartRedis, postgres_url: str, tmp_path: Path
) -> Iterator[tuple[Shop, RedisServer]]:
    """A shop with a Redis of its own, which may be killed, frozen and emptied."""
    server = private_redis()
    with contextlib.ExitStack() as stack:
        yield Shop(tmp_path, postgres_url, server.url(), stack=stack), server


# --- triggers ---------------------------------------------------------------------------------


def test_fifty_triggers_are_one_run(shop: Shop) -> None:
    shop.started_worker("--until", shop.folder / "go")
    first = shop.trigger()
    shop.until_started()
    with ThreadPoolExecutor(10) as pool:
        triggered = list(pool.map(lambda _: shop.trigger().job.id, range(50)))
    assert triggered == [first.job.id] * 50

    (shop.folder / "go").touch()
    shop.until_state(first.job, "succeeded")

    # What arrived after the run began is covered by one more run, and no other follows.
    wait_until(
        lambda: [job.state for job in shop.jobs()] == ["succeeded"] * 2,
        timeout_seconds=20,
        describe=shop.logs,
    )
    can_be_triggered_again_at_once(shop, "succeeded")
    assert len(shop.journal("start")) == len(shop.jobs()) == 5


def test_a_job_that_failed_can_be_triggered_again_at_once(shop: Shop) -> None:
    shop.started_worker("--error", "no use")
    can_be_triggered_again_at_once(shop, "failed")
    assert len(shop.journal("start")) == len(shop.jobs()) == 3


def can_be_triggered_again_at_once(shop: Shop, state: str) -> None:
    for _ in range(3):
        triggered = shop.trigger()
        assert not triggered.is_coalesced
        shop.until_state(triggered.job, state)


def test_messages_alone_wake_an_arq_worker(redis_shop: tuple[Shop, RedisServer]) -> None:
    """One that computes hears of changes, too."""
    shop, server = redis_shop
    go = shop.folder / "go"
    go.touch()
    shop.started_worker("--until", go, look=NEVER_SECONDS)
    for _ in range(2):
        job = shop.trigger().job
        seconds = shop.until_state(job, "succeeded")
    print(f"from trigger to success {seconds:.2f} s")
    with server.client() as client:
        wait_until(
            lambda: client.zcard("shop:arq:queue") == 0,
            timeout_seconds=20,
            describe="the message to be taken",
        )
        assert not client.keys("shop:arq:job:*")
        assert not client.keys("shop:arq:result:*")
        assert not [key for key in client.keys("*") if not key.startswith(b"shop:")]

    go.unlink()
    job = shop.trigger().job
    shop.until_started(3)
    key = "shop:arq:job:refresh_users"
    with server.client() as client:
        for _ in range(2):
            shop.wake_refresh()
            wait_until(
                lambda: not client.exists(key), timeout_seconds=20, describe="the wake to be taken"
            )
    assert shop.read(job).state == "running"
    go.touch()
    shop.until_state(job, "succeeded")


def test_a_message_that_was_lost_is_not_missed(redis_shop: tuple[Shop, RedisServer]) -> None:
    shop, server = redis_shop
    job = shop.trigger().job
    with server.client() as client:
        client.flushall()
    shop.started_worker()
    shop.until_state(job, "succeeded")


# --- lost workers -----------------------------------------------------------------------------


def test_jobs_of_lost_workers_are_finished(
    private_redis: StartRedis,
    postgres: PostgresDatabases,
    postgres_template: str,
    sqlite_template: Path,
    tmp_path: Path,
) -> None:
    """Four shops at once, since each waits for a lease to run out."""
    with contextlib.ExitStack() as stack:

        def shop(name: str, *, with_redis: bool) -> Shop:
            folder = tmp_path / name
            folder.mkdir()
            if not with_redis:
                shutil.copyfile(sqlite_template, folder / "shop.db")
                return Shop(folder, sqlite_address(folder / "shop.db"), stack=stack)
            url = postgres.create_database(template=postgres_template)
            stack.callback(postgres.drop_database, url)
            return Shop(folder, url, private_redis().url(), stack=stack)

        scenarios = {
            "killed-embedded": (_killed, shop("killed-embedded", with_redis=False)),
            "killed-arq": (_killed, shop("killed-arq", with_redis=True)),
            "frozen": (_frozen, shop("frozen", with_redis=True)),
            "paused": (_paused, shop("paused", with_redis=False)),
        }
        _all_at_once(scenarios)


def _killed(shop: Shop) -> None:
    """Another worker finishes what a killed one began."""
    first = shop.started_worker("--until", shop.folder / "never", name="first")
    job = shop.trigger().job
    shop.until_started()
    computing = first.descendants()
    shop.started_worker(name="second")

    # By its id alone: what it had started must notice by itself.
    psutil.Process(first.pid).kill()
    killed_at = time.monotonic()
    _until_finished_by_another(shop, job)
    seconds = time.monotonic() - killed_at

    print(f"{shop.folder.name}: finished by another worker {seconds:.1f} s after the kill")
    assert seconds < LEASE_SECONDS + 10
    assert shop.read(job).tries == 2
    assert computing
    assert not any(is_alive(process) for process in computing)
    assert not shop.trigger().is_coalesced


def _frozen(shop: Shop) -> None:
    """A frozen worker loses its job, its late words are refused, and it goes on."""
    first = shop.started_worker("--until", shop.folder / "never", name="first")
    job = shop.trigger().job
    _until_stage(shop, job)
    first.pause()
    assert shop.trigger().job.id == job.id
    shop.started_worker(name="second")
    _until_finished_by_another(shop, job)
    ended = shop.read(job)

    (shop.folder / "never").touch()  # the frozen run would end well, too late
    first.resume()
    wait_until(lambda: "job.lost" in first.stderr(), timeout_seconds=20, describe=first.log_tail)

    assert shop.read(job) == ended
    assert first.is_running


def _paused(shop: Shop) -> None:
    """A worker that nobody replaced meanwhile goes on with its job."""
    worker = shop.started_worker("--until", shop.folder / "go")
    job = shop.trigger().job
    _until_stage(shop, job)
    worker.pause()
    _let_pass(LEASE_SECONDS + 1)
    worker.resume()
    (shop.folder / "go").touch()
    shop.until_state(job, "succeeded")
    assert shop.read(job).tries == len(shop.journal("start")) == 1


def _until_finished_by_another(shop: Shop, job: Job) -> None:
    shop.until_started(2, seconds=60)  # a look at a file: the lease takes its time
    shop.until_state(job, "succeeded")


def _until_stage(shop: Shop, job: Job) -> None:
    wait_until(
        lambda: shop.read(job).stage == "extract",
        timeout_seconds=20,
        describe=lambda: f"its progress\n{shop.logs()}",
    )


def _let_pass(seconds: float) -> None:
    """For what is about the passing of time itself."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, timeout_seconds=seconds + 5, describe="time")


def _all_at_once(scenarios: dict[str, tuple[Callable[[Shop], None], Shop]]) -> None:
    with ThreadPoolExecutor(len(scenarios)) as pool:
        running = {
            name: pool.submit(scenario, shop) for name, (scenario, shop) in scenarios.items()
        }
    failed = {name: future.exception() for name, future in running.items()}
    for name, error in failed.items():
        if error is not None:
            error.add_note(f"in {name}, among {sorted(running)}")
            raise error


def test_a_stopped_worker_gives_its_job_to_the_next(shop: Shop) -> None:
    job = shop.trigger().job
    for run, number in enumerate((signal.SIGTERM, signal.SIGINT), start=1):
        worker = shop.started_worker("--until", shop.folder / "never", name=number.name)
        shop.until_started(run)

        started = time.monotonic()
        assert worker.stop(number=number) == 0, worker.log_tail()
        print(f"stopped in {time.monotonic() - started:.2f} s")
        assert time.monotonic() - started < 10
        given_back = shop.read(job)
        assert (given_back.state, given_back.tries) == ("queued", 0)
        assert "Traceback" not in worker.stderr()

    last = shop.started_worker(name="last", look=NEVER_SECONDS)
    shop.until_state(job, "succeeded")
    assert last.stop() == 0, last.log_tail()


def test_a_cancelled_job_ends_within_seconds_and_the_next_one_runs(shop: Shop) -> None:
    worker = shop.started_worker("--until", shop.folder / "go")
    job = shop.trigger().job
    shop.until_started()
    with shop.engine() as engine, engine.begin() as connection:
        cancelling.cancel(connection, job.id, now=database_time(connection))

    seconds = shop.until_state(job, "cancelled", seconds=10)
    print(f"cancelled within {seconds:.1f} s")

    (shop.folder / "go").touch()
    triggered = shop.trigger()
    assert not triggered.is_coalesced
    shop.until_state(triggered.job, "succeeded")
    assert [each.state for each in shop.jobs()] == ["succeeded", "cancelled"]
    assert worker.is_running


# --- Redis away -------------------------------------------------------------------------------


def test_a_worker_outlives_a_redis_that_goes_away(
    private_redis: StartRedis,
    postgres: PostgresDatabases,
    postgres_template: str,
    tmp_path: Path,
) -> None:
    """Killed and started again without what it held; frozen and thawed. Both at once."""
    with contextlib.ExitStack() as stack:
        scenarios = {}
        for fault in ("killed", "frozen"):
            (tmp_path / fault).mkdir()
            url = postgres.create_database(template=postgres_template)
            stack.callback(postgres.drop_database, url)
            server = private_redis()
            shop = Shop(tmp_path / fault, url, server.url(), stack=stack)
            scenarios[fault] = (partial(_redis_away, server=server, fault=fault), shop)
        _all_at_once(scenarios)


def _redis_away(shop: Shop, *, server: RedisServer, fault: str) -> None:
    worker = shop.started_worker("--until", shop.folder / "go", look=NEVER_SECONDS)
    job = shop.trigger().job
    shop.until_started()

    server.kill() if fault == "killed" else server.pause()
    wait_until(
        lambda: "queue.away" in worker.stderr(), timeout_seconds=20, describe=worker.log_tail
    )
    (shop.folder / "go").touch()
    shop.until_state(job, "succeeded")  # what runs needs no Redis
    _let_pass(8)  # the wait between attempts grows to its largest
    assert worker.is_running

    server.restart() if fault == "killed" else server.resume()
    seconds = shop.until_state(shop.trigger().job, "succeeded", seconds=30)

    print(f"first job done {seconds:.1f} s after Redis came back ({fault})")
    assert seconds < 15
    assert worker.is_running
    assert len(shop.journal("start")) == 2
    assert "Traceback" not in worker.stderr()


def test_a_worker_starts_before_its_redis(
    private_redis: StartRedis, postgres_url: str, tmp_path: Path
) -> None:
    port = unused_port()
    with contextlib.ExitStack() as stack:
        shop = Shop(tmp_path, postgres_url, f"redis://127.0.0.1:{port}/0", stack=stack)
        worker = shop.start_worker(look=NEVER_SECONDS)
        wait_until(
            lambda: "queue.away" in worker.stderr(), timeout_seconds=20, describe=worker.log_tail
        )
        private_redis(port=port)
        shop.until_state(shop.trigger().job, "succeeded")


def test_an_emptied_redis_costs_no_job(redis_shop: tuple[Shop, RedisServer]) -> None:
    """Emptied while a job waits, and while one runs."""
    shop, server = redis_shop
    go = shop.folder / "go"
    go.touch()
    shop.started_worker("--until", go)
    with server.client() as client:
        client.set("shop:arq:queue:mark", "x")
        waiting = shop.trigger().job
        client.flushall()
        shop.until_state(waiting, "succeeded", seconds=60)

        go.unlink()
        running = shop.trigger().job
        shop.until_started(2)
        client.flushall()
        go.touch()
        shop.until_state(running, "succeeded", seconds=60)
    shop.until_state(shop.trigger().job, "succeeded")


def test_planted_bytes_are_neither_run_nor_fatal(
    redis_shop: tuple[Shop, RedisServer], tmp_path: Path
) -> None:
    shop, server = redis_shop
    trap = tmp_path / "trapped"
    planted = pickle.dumps(Trap(str(trap)))
    with server.client() as client:
        for name in (b"0" * 32 + b":0", b"other", b"\xff\xfe", planted):
            client.set(b"shop:arq:job:" + name, planted)
            client.set(b"shop:arq:result:" + name, planted)
            client.zadd("shop:arq:queue", {name: 1})
    worker = shop.started_worker()
    job = shop.trigger().job
    shop.until_state(job, "succeeded")

    with server.client() as client:
        wait_until(
            lambda: client.zcard("shop:arq:queue") == 0,
            timeout_seconds=30,
            describe=lambda: f"the planted messages to go\n{worker.log_tail()}",
        )
    last = shop.trigger().job
    shop.until_state(last, "succeeded")
    assert worker.is_running
    assert not trap.exists()
    assert "Traceback" not in worker.stderr()


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (open, (self.path, "w"))


# --- the database away ------------------------------------------------------------------------


def test_a_worker_waits_for_a_database_that_starts_later(
    private_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    server = private_postgres()
    url = server.create_database()
    with contextlib.ExitStack() as stack:
        shop = Shop(tmp_path, url, stack=stack)
        migrate(shop.settings)
        server.kill()
        worker = shop.start_worker()
        wait_until(
            lambda: "worker.waits" in worker.stderr(), timeout_seconds=20, describe=worker.log_tail
        )
        server.restart()
        shop.until_state(shop.trigger().job, "succeeded")

        server.kill()
        wait_until(
            lambda: "worker.blind" in worker.stderr(), timeout_seconds=20, describe=worker.log_tail
        )
        server.restart()
        shop.until_state(shop.trigger().job, "succeeded")
        assert "Traceback" not in worker.stderr()


def test_a_worker_stops_though_its_database_is_frozen(
    private_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    server = private_postgres()
    with contextlib.ExitStack() as stack:
        shop = Shop(tmp_path, server.create_database(), stack=stack)
        migrate(shop.settings)
        worker = shop.started_worker("--until", tmp_path / "never")
        shop.trigger()
        shop.until_started()
        server.pause()
        started = time.monotonic()
        assert worker.stop() == 0
        seconds = time.monotonic() - started
        server.resume()
    print(f"stopped in {seconds:.1f} s")
    assert seconds < 10


def test_a_database_that_never_answers_ends_the_worker_with_one_line(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        shop = Shop(tmp_path, f"postgresql://u:secret@127.0.0.1:{unused_port()}/d", stack=stack)
        worker = shop.start_worker(start=2)
        wait_until(lambda: not worker.is_running, timeout_seconds=20, describe=worker.log_tail)
        lines = worker.stderr().splitlines()
    assert lines[-1].startswith("DatabaseUnavailable: ")
    assert len([line for line in lines if "worker.waits" in line]) >= 2
    assert "secret" not in worker.stderr()
    assert "Traceback" not in worker.stderr()


def test_a_database_without_tables_is_said_at_once(tmp_path: Path) -> None:
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/empty.db", "TASTEMATCH_DATA_DIR": str(tmp_path)}
    ended = run_tastematch("worker", env=env)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "tastematch: the database has no tables yet: run `tastematch migrate`"
    )


# --- being seen -------------------------------------------------------------------------------


def test_a_worker_is_seen_until_it_stops(shop: Shop) -> None:
    worker = shop.started_worker("--until", shop.folder / "go")

    with shop.engine() as engine:

        def seen() -> list[workers.SeenWorker]:
            with engine.connect() as connection:
                return list(workers.seen(connection, now=database_time(connection)))

        wait_until(seen, timeout_seconds=20, describe=worker.log_tail)
        (row,) = seen()
        assert row.pid == worker.pid
        assert row.kind == ("arq" if shop.redis_url else "embedded")
        shop.trigger()
        wait_until(
            lambda: seen()[0].state == "running", timeout_seconds=20, describe="a beat that says so"
        )
        assert worker.stop() == 0
        assert seen() == []
