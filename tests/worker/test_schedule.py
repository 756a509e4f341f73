"""Runs that workers queue by themselves: cron ticks, and the repair of an empty store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import text

from shared.db.engine import sync_engine
from shared.jobs import records, slots
from shared.jobs.job import Job, State
from shared.settings import load_settings
from shared.snapshot.layout import Keys
from shared.snapshot.opening import open_store
from tests.conformance.snapshot_engines import DiskEngine, RedisEngine
from tests.services.children import wait_until
from tests.services.processes import start_worker
from tests.services.snapshots import SnapshotSpec, publish_snapshot
from tests.services.versions import publish_versions
from tests.worker.shop import Shop, shop_on
from worker.schedule import Schedule, is_repair_due

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOURLY = "0 * * * *"
YEARLY = "0 0 1 1 *"


def at(**after_noon: float) -> datetime:
    return NOON + timedelta(**after_noon)


# --- ticks ------------------------------------------------------------------------------------


def test_a_tick_is_due_once() -> None:
    schedule = Schedule(HOURLY, now=at(minutes=-1))
    assert schedule.due(at(seconds=-0.1)) is None
    assert schedule.due(at(seconds=0.1)) == NOON
    assert schedule.due(at(seconds=0.6)) == NOON  # until it is served
    schedule.served(NOON)
    assert schedule.due(at(seconds=1)) is None
    assert schedule.due(at(hours=1, seconds=1)) == at(hours=1)


def test_a_worker_that_starts_owes_no_tick_of_the_past() -> None:
    assert Schedule(HOURLY, now=at(seconds=1)).due(at(seconds=2)) is None


def test_ticks_missed_in_a_sleep_are_due_once() -> None:
    schedule = Schedule(HOURLY, now=at(minutes=-1))
    tick = schedule.due(at(days=2, minutes=10))
    assert tick == at(days=2)
    schedule.served(tick)
    assert schedule.due(at(days=2, minutes=11)) is None


def test_a_clock_set_back_a_little_does_not_repeat_a_tick() -> None:
    schedule = Schedule(HOURLY, now=at(minutes=-1))
    schedule.served(NOON)
    assert schedule.due(at(seconds=-3)) is None
    assert schedule.due(at(seconds=3)) is None
    assert schedule.due(at(hours=1, seconds=1)) == at(hours=1)


def test_a_clock_set_back_by_a_day_does_not_starve() -> None:
    schedule = Schedule(HOURLY, now=at(days=1, minutes=-1))
    schedule.served(at(days=1))
    assert schedule.due(at(minutes=10)) is None
    assert schedule.due(at(hours=1, seconds=1)) == at(hours=1)


def test_a_clock_set_forward_by_a_day_is_one_tick() -> None:
    schedule = Schedule(HOURLY, now=at(minutes=1))
    tick = schedule.due(at(days=1, minutes=2))
    assert tick is not None
    schedule.served(tick)
    assert schedule.due(at(days=1, minutes=3)) is None


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [(HOURLY, 3600), ("*/15 * * * *", 900), ("30 4 * * *", 86400), ("*/2 * * * * *", 2)],
)
def test_the_interval_of_a_schedule(expression: str, seconds: float) -> None:
    schedule = Schedule(expression, now=at(seconds=1))
    assert schedule.interval_seconds(at(seconds=1)) == seconds


def test_leap_days_come_round() -> None:
    schedule = Schedule("0 0 29 2 *", now=NOON)
    assert schedule.due(datetime(2028, 2, 29, 0, 0, 1, tzinfo=UTC)) == datetime(
        2028, 2, 29, tzinfo=UTC
    )


def test_three_workers_run_each_slot_once_however_the_clock_is_set(
    database_url: str, tmp_path: Path
) -> None:
    """By the database's clock: set back a little at a tick, set forward by a day, set right."""
    settings = load_settings({"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path)})
    engine = sync_engine(settings)
    clock = [
        *(at(minutes=minutes) for minutes in range(-5, 119, 10)),
        at(hours=2, seconds=1),
        at(hours=2, seconds=-20),  # just after the tick at 14:00
        *(at(hours=2, minutes=minutes) for minutes in range(1, 60, 10)),
        *(at(days=1, hours=3, minutes=minutes) for minutes in range(5, 120, 10)),
        *(at(hours=3, minutes=minutes) for minutes in range(-5, 120, 10)),
        *(at(days=1, hours=3, minutes=minutes) for minutes in range(5, 180, 10)),
    ]
    workers = [Schedule(HOURLY, now=clock[0]) for _ in range(3)]
    queued = []
    for now in clock:
        for schedule in workers:
            tick = schedule.due(now)
            if tick is None:
                continue
            with engine.begin() as connection:
                job = slots.trigger_slot(
                    connection, kind="precompute", origin="cron", slot=tick, now=now
                )
            schedule.served(tick)
            if job is not None:
                queued.append(tick)
                with engine.begin() as connection:
                    records.claim(connection, job.id, owner="w", now=now)
                    records.finish(connection, job.id, owner="w", state="succeeded", now=now)
    engine.dispose()

    assert len(set(queued)) == len(queued), "a slot is run once"
    passed = {now.replace(minute=0, second=0) for now in clock[1:]}
    assert set(queued) == passed, "each slot that came has its run"


# --- repair: when -----------------------------------------------------------------------------


def a_job(state: State, *, ended: datetime | None) -> Job:
    return Job(
        id="0" * 32,
        kind="precompute",
        state=state,
        origin="repair",
        progress=0,
        stage=None,
        stages=[],
        peak_rss_mb=None,
        error=None,
        snapshot_version=None,
        created_at=NOON,
        started_at=NOON,
        finished_at=ended,
        tries=1,
    )


def is_due(*states: State, after_seconds: float) -> bool:
    jobs = [a_job(state, ended=NOON) for state in states]
    return is_repair_due(jobs, now=at(seconds=after_seconds), interval_seconds=3600)


def test_the_first_repair_is_due_at_once() -> None:
    assert is_due(after_seconds=0)


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_under_way_repairs(state: State) -> None:
    jobs = [a_job(state, ended=None)]
    assert not is_repair_due(jobs, now=at(hours=9), interval_seconds=3600)


@pytest.mark.parametrize(
    ("failures", "wait_seconds"), [(1, 60), (2, 120), (3, 240), (5, 960), (8, 3600), (12, 3600)]
)
def test_failed_repairs_wait_longer_each_time(failures: int, wait_seconds: float) -> None:
    failed: list[State] = ["failed"] * failures
    assert not is_due(*failed, after_seconds=wait_seconds - 1)
    assert is_due(*failed, after_seconds=wait_seconds)


def test_a_success_ends_the_longer_waits() -> None:
    assert not is_due("succeeded", "failed", "failed", after_seconds=59)
    assert is_due("succeeded", "failed", "failed", after_seconds=60)
    assert is_due("failed", "succeeded", "failed", "failed", after_seconds=60)


def test_a_schedule_of_seconds_repairs_once_a_minute() -> None:
    jobs = [a_job("failed", ended=NOON)] * 5
    assert not is_repair_due(jobs, now=at(seconds=59), interval_seconds=2)
    assert is_repair_due(jobs, now=at(seconds=60), interval_seconds=2)


def test_an_end_in_the_future_is_no_reason_to_wait() -> None:
    assert is_due("failed", after_seconds=-3600)


# --- processes --------------------------------------------------------------------------------


@pytest.fixture(params=["embedded", "arq"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    with contextlib.ExitStack() as stack:
        yield shop_on(request, tmp_path, stack)


def test_two_workers_run_each_tick_once(shop: Shop) -> None:
    """With a snapshot there, so that ticks alone queue jobs."""
    publish_versions(shop.settings, 1)
    shop.cron = "*/3 * * * * *"
    for number in range(2):
        shop.started_worker(name=f"worker{number}")
    ticks = 3

    def runs() -> list[Job]:
        return [job for job in shop.jobs() if job.origin == "cron" and job.state == "succeeded"]

    wait_until(lambda: len(runs()) >= ticks, timeout_seconds=40, describe=shop.logs)

    queued = shop.jobs()
    assert {job.origin for job in queued} == {"cron"}
    slots = [int(job.created_at.timestamp()) // 3 for job in queued]
    assert len(set(slots)) == len(slots)


@pytest.mark.parametrize("shop", ["embedded"], indirect=True)
def test_a_tick_during_a_run_is_neither_queued_nor_run_after_it(shop: Shop) -> None:
    publish_versions(shop.settings, 1)
    shop.cron = "*/2 * * * * *"
    worker = shop.started_worker("--until", shop.folder / "go")
    shop.until_started()
    wait_until(
        lambda: worker.stderr().count("schedule.tick") >= 4,
        timeout_seconds=20,
        describe=worker.log_tail,
    )
    (running,) = shop.jobs()
    assert len(shop.journal("start")) == 1
    (shop.folder / "go").touch()
    shop.until_state(running, "succeeded")
    shop.until_started(2)
    first, second = (line["at"] for line in shop.journal("start")[:2])
    ended = shop.journal("end")[0]["at"]
    assert second - ended < 10
    assert int(second) // 2 > int(ended) // 2  # at a tick after the run, not at its end
    assert first < ended


def test_without_a_schedule_nothing_runs_untriggered(shop: Shop) -> None:
    shop.fill()
    worker = shop.started_worker()
    job = shop.trigger().job
    shop.until_state(job, "succeeded")  # it has looked, and run what was asked
    assert [each.id for each in shop.jobs()] == [job.id]
    assert worker.is_running


def test_a_store_without_a_snapshot_is_repaired(shop: Shop) -> None:
    """At the first start, and after a Redis that came back empty. The real precompute runs."""
    shop.fill()
    shop.cron = YEARLY
    with start_worker(env=shop.env) as worker, closing(open_store(shop.settings)) as store:

        def until_active() -> None:
            wait_until(
                lambda: store.pointer().version, timeout_seconds=60, describe=worker.log_tail
            )

        until_active()
        (job,) = shop.jobs()
        shop.until_state(job, "succeeded")
        job = shop.read(job)
        assert (job.origin, job.snapshot_version) == ("repair", shop.active_version())
        assert [stage["name"] for stage in job.stages][:1] == ["extract"]
        assert [stage["name"] for stage in job.stages][-1:] == ["publish"]
        assert job.peak_rss_mb is not None
        assert 50 < job.peak_rss_mb < 300

        if not shop.redis_url:
            return
        _age(shop)
        with Redis.from_url(shop.redis_url) as client:
            client.flushdb()
        started = time.monotonic()
        until_active()
        print(f"whole again {time.monotonic() - started:.1f} s after FLUSHDB")
        assert [each.origin for each in shop.jobs()] == ["repair", "repair"]


def test_a_snapshot_that_lost_a_part_is_repaired(shop: Shop) -> None:
    settings = shop.settings
    with closing(open_store(settings)) as store:
        version = publish_snapshot(store, SnapshotSpec(restaurants={1: None})).version
    engine = RedisEngine(shop.redis_url) if shop.redis_url else DiskEngine(settings.store_dir)
    engine.remove(Keys(settings.namespace).chunk(version, "lists", 0))
    shop.cron = YEARLY
    worker = shop.started_worker()
    wait_until(
        lambda: [job.origin for job in shop.jobs()] == ["repair"],
        timeout_seconds=20,
        describe=worker.log_tail,
    )


def test_a_repair_that_fails_is_not_tried_again_at_once(shop: Shop) -> None:
    shop.cron = YEARLY
    worker = shop.started_worker("--error", "no data")
    wait_until(
        lambda: [job.state for job in shop.jobs()] == ["failed"],
        timeout_seconds=20,
        describe=worker.log_tail,
    )
    again = shop.trigger().job
    shop.until_state(again, "failed")
    assert [job.origin for job in shop.jobs()] == ["http", "repair"]


def _age(shop: Shop) -> None:
    """Makes the jobs that ended look old: a repair soon after a success waits a minute."""
    with shop.engine() as engine, engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET finished_at = '2026-01-01 00:00:00+00'"))
