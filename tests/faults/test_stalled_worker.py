"""A worker that stalls and wakes too late: its run publishes nothing, and a job one version."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis

from shared.jobs import cancelling
from shared.jobs.clock import database_time
from shared.jobs.job import Job
from tests.faults.leases import leases_run_out
from tests.services.children import Child, wait_until
from tests.services.processes import start_worker
from tests.worker import stalling_precompute
from tests.worker.shop import Shop, shop_on

STALLS = Path(stalling_precompute.__file__)
SECONDS = 60.0


@pytest.fixture(params=["embedded", "arq"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """With data and without a snapshot: embedded on SQLite, arq on PostgreSQL and Redis."""
    with contextlib.ExitStack() as stack:
        shop = shop_on(request, tmp_path, stack)
        shop.fill()
        yield shop


def stalled_run(worker: Child) -> psutil.Process:
    """The computing process of a worker, once it has stopped itself."""

    def stopped() -> list[psutil.Process]:
        return [
            process for process in worker.descendants() if process.status() == psutil.STATUS_STOPPED
        ]

    return wait_until(stopped, timeout_seconds=SECONDS, describe=worker.log_tail)[0]


def stall(shop: Shop, *, at: str) -> tuple[Child, Job]:
    """A worker and its run, frozen at that moment of the run, and the job that they have lost."""
    worker = shop.started_worker("--at", at, name="first", program=STALLS)
    job = shop.trigger().job
    stalled_run(worker)
    worker.pause()
    leases_run_out(shop.settings)
    return worker, job


def wakes_too_late(worker: Child) -> None:
    worker.resume()
    wait_until(lambda: "job.lost" in worker.stderr(), timeout_seconds=20, describe=worker.log_tail)
    assert worker.is_running


@pytest.mark.parametrize("shop", ["arq"], indirect=True)
def test_a_run_that_stalls_in_its_middle_publishes_nothing_after_another(shop: Shop) -> None:
    first, job = stall(shop, at="reading")
    with start_worker(env=shop.env):
        shop.until_state(job, "succeeded", seconds=SECONDS)
        ended = shop.read(job)

        wakes_too_late(first)

        assert shop.read(job) == ended
        assert shop.versions() == {ended.snapshot_version: ("active", job.id)}


@pytest.mark.parametrize("shop", ["arq"], indirect=True)
def test_a_run_that_stalls_between_its_last_check_and_the_switch_does_not_switch(
    shop: Shop,
) -> None:
    """The one that took over is in its middle when the first sends what it had ready."""
    first, job = stall(shop, at="switch")
    second = shop.started_worker("--at", "reading", name="second", program=STALLS)
    computing = stalled_run(second)
    assert shop.versions() == {}

    wakes_too_late(first)

    assert shop.versions() == {}
    assert shop.read(job).state == "running"
    computing.resume()
    shop.until_state(job, "succeeded", seconds=SECONDS)
    assert shop.versions() == {shop.read(job).snapshot_version: ("active", job.id)}


@pytest.mark.parametrize("shop", ["arq"], indirect=True)
def test_what_a_lost_worker_had_published_is_the_job_s_version(shop: Shop) -> None:
    first, job = stall(shop, at="switched")
    version = shop.active_version()
    assert version is not None
    with start_worker(env=shop.env):
        shop.until_state(job, "succeeded", seconds=SECONDS)
    assert shop.read(job).snapshot_version == version
    assert shop.read(job).tries == 2

    wakes_too_late(first)

    assert shop.versions() == {version: ("active", job.id)}


@pytest.mark.parametrize("shop", ["arq"], indirect=True)
def test_a_redis_that_is_emptied_right_before_the_switch_costs_no_job(shop: Shop) -> None:
    worker = shop.started_worker("--at", "switch", program=STALLS)
    job = shop.trigger().job
    computing = stalled_run(worker)
    with Redis.from_url(shop.redis_url) as client:
        client.flushdb()
    computing.resume()

    shop.until_state(job, "succeeded", seconds=SECONDS)
    assert shop.versions() == {shop.read(job).snapshot_version: ("active", job.id)}


@pytest.mark.parametrize("shop", ["embedded"], indirect=True)
def test_a_run_that_is_cancelled_right_before_the_switch_publishes_nothing(shop: Shop) -> None:
    worker = shop.started_worker("--at", "switch", program=STALLS)
    job = shop.trigger().job
    stalled_run(worker)
    with shop.engine() as engine, engine.begin() as connection:
        cancelling.cancel(connection, job.id, now=database_time(connection))

    shop.until_state(job, "cancelled", seconds=20)
    assert shop.versions() == {}
    assert worker.is_running
