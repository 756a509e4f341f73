"""Job records on both databases: one active job, leases, trailing runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Connection, Engine

from shared.db.engine import async_engine, sync_engine
from shared.errors import JobCancelled, JobEnded, JobLost, JobNotFound
from shared.jobs import cancelling, leases, records, slots, workers
from shared.jobs.clock import database_time
from shared.jobs.job import LEASE_SECONDS, MAX_TRIES, Job
from shared.jobs.records import Triggered
from shared.settings import Settings, load_settings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AFTER_LEASE = NOW + timedelta(seconds=LEASE_SECONDS + 1)
T = TypeVar("T")


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return load_settings({"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path)})


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = sync_engine(settings)
    yield engine
    engine.dispose()


def trigger(engine: Engine, *, origin: str = "http", wants_rerun: bool = True) -> Triggered:
    with engine.begin() as connection:
        return records.trigger(
            connection, kind="precompute", origin=origin, now=NOW, wants_rerun=wants_rerun
        )


def running(engine: Engine, owner: str = "a") -> Job:
    job = trigger(engine).job
    with engine.begin() as connection:
        claimed = records.claim(connection, job.id, owner=owner, now=NOW)
    assert claimed is not None
    return claimed


def finish(engine: Engine, job: Job, *, state: str = "succeeded", owner: str = "a") -> Job | None:
    with engine.begin() as connection:
        return records.finish(connection, job.id, owner=owner, state=state, now=NOW)  # type: ignore[arg-type]


def read(engine: Engine, job: Job) -> Job:
    with engine.connect() as connection:
        return records.get(connection, job.id)


def at_once(number: int, work: Callable[[int], T]) -> list[T]:
    """Runs `work` in threads that all start together, and returns what each returned."""
    barrier = threading.Barrier(number)
    results: list[T] = []
    errors: list[BaseException] = []

    def run(place: int) -> None:
        barrier.wait()
        try:
            results.append(work(place))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, errors
    return results


# --- triggers ---------------------------------------------------------------------------------


def test_fifty_triggers_at_once_are_one_job(engine: Engine) -> None:
    triggered = at_once(50, lambda _: trigger(engine))

    assert len({each.job.id for each in triggered}) == 1
    assert sorted(each.is_coalesced for each in triggered) == [False] + [True] * 49


def test_fifty_triggers_while_one_runs_are_that_job_and_one_trailing_run(engine: Engine) -> None:
    job = running(engine)

    triggered = at_once(50, lambda _: trigger(engine))

    assert {each.job.id for each in triggered} == {job.id}
    trailing = finish(engine, job)
    assert trailing is not None
    assert trailing.state == "queued"
    with engine.begin() as connection:
        records.claim(connection, trailing.id, owner="a", now=NOW)
    assert finish(engine, trailing) is None


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_a_job_that_ended_makes_room_at_once(engine: Engine, state: str) -> None:
    job = running(engine)
    assert finish(engine, job, state=state) is None

    again = trigger(engine)

    assert not again.is_coalesced
    assert again.job.id != job.id


def test_a_trigger_that_wants_no_rerun_leaves_no_trailing_run(engine: Engine) -> None:
    job = running(engine)

    joined = trigger(engine, origin="cron", wants_rerun=False)

    assert joined.is_coalesced
    assert finish(engine, job) is None


def test_a_trigger_in_the_moment_a_job_ends_is_never_lost(engine: Engine) -> None:
    """Whichever comes first, a run that begins after the trigger is there afterwards."""
    for _ in range(20):
        job = running(engine)

        def end_or_trigger(place: int, job: Job = job) -> Triggered | None:
            if place == 0:
                finish(engine, job)
                return None
            return trigger(engine)

        at_once(2, end_or_trigger)

        assert read(engine, job).state == "succeeded"
        with engine.begin() as connection:
            left = records.queued(connection, "precompute")
            assert left is not None
            records.claim(connection, left.id, owner="a", now=NOW)
        assert finish(engine, left) is None


async def test_triggers_work_on_the_api_s_engine(settings: Settings) -> None:
    engine = async_engine(settings)

    def trigger_on(connection: Connection) -> Triggered:
        return records.trigger(connection, kind="precompute", origin="http", now=NOW)

    async with engine.begin() as connection:
        first = await connection.run_sync(trigger_on)
    async with engine.begin() as connection:
        second = await connection.run_sync(trigger_on)
    await engine.dispose()

    assert (first.is_coalesced, second.is_coalesced) == (False, True)
    assert first.job.id == second.job.id


def test_an_unknown_job_is_not_found(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(JobNotFound):
        records.get(connection, "0" * 32)


# --- leases -----------------------------------------------------------------------------------


def test_one_of_many_workers_claims_a_job(engine: Engine) -> None:
    job = trigger(engine).job

    def claim(place: int) -> Job | None:
        with engine.begin() as connection:
            return records.claim(connection, job.id, owner=f"w{place}", now=NOW)

    claims = [claimed for claimed in at_once(10, claim) if claimed]

    assert len(claims) == 1
    assert claims[0].state == "running"
    assert claims[0].tries == 1


def test_a_lost_worker_s_job_is_queued_again_and_its_late_words_are_refused(engine: Engine) -> None:
    job = running(engine, "a")
    with engine.begin() as connection:
        assert leases.release_expired(connection, now=NOW) == []
        assert [each.id for each in leases.release_expired(connection, now=AFTER_LEASE)] == [job.id]
        assert records.claim(connection, job.id, owner="b", now=AFTER_LEASE) is not None

    with engine.begin() as connection:
        with pytest.raises(JobLost):
            records.check_owner(connection, job.id, owner="a")
        with pytest.raises(JobLost):
            records.heartbeat(
                connection,
                job.id,
                owner="a",
                now=AFTER_LEASE,
                progress=0.5,
                stage="lists",
                stages=[],
                peak_rss_mb=None,
            )
        with pytest.raises(JobLost):
            records.requeue(connection, job.id, owner="a", now=NOW)
        with pytest.raises(JobLost):
            records.try_again(connection, job.id, owner="a", now=AFTER_LEASE)
    with pytest.raises(JobLost):
        finish(engine, job, owner="a")
    assert read(engine, job).state == "running"
    assert finish(engine, job, owner="b") is None


def test_a_worker_spares_its_own_lease(engine: Engine) -> None:
    job = running(engine, "a")
    with engine.begin() as connection:
        assert leases.release_expired(connection, now=AFTER_LEASE, spare_owner="a") == []
        assert leases.release_expired(connection, now=AFTER_LEASE, spare_owner="b") != []
    assert read(engine, job).state == "queued"


def test_a_heartbeat_keeps_the_lease_and_shows_progress(engine: Engine) -> None:
    job = running(engine, "a")
    with engine.begin() as connection:
        records.heartbeat(
            connection,
            job.id,
            owner="a",
            now=AFTER_LEASE,
            progress=0.5,
            stage="lists",
            stages=[{"name": "extract", "seconds": 0.25}],
            peak_rss_mb=101.5,
        )
        assert leases.release_expired(connection, now=AFTER_LEASE) == []

    seen = read(engine, job).as_dict()
    assert (seen["progress"], seen["stage"], seen["peak_rss_mb"]) == (0.5, "lists", 101.5)
    assert seen["stages"] == [{"name": "extract", "seconds": 0.25}]


def test_a_job_whose_workers_are_always_lost_fails_with_its_reason(engine: Engine) -> None:
    job = running(engine, "w1")
    for number in range(2, MAX_TRIES + 1):
        with engine.begin() as connection:
            leases.release_expired(connection, now=AFTER_LEASE)
            assert records.claim(connection, job.id, owner=f"w{number}", now=NOW) is not None

    with engine.begin() as connection:
        (released,) = leases.release_expired(connection, now=AFTER_LEASE)

    assert released.state == "failed"
    assert released.error == "the worker was lost 3 times while the job ran"
    assert not trigger(engine).is_coalesced


def test_an_orderly_stop_gives_the_job_back_uncounted(engine: Engine) -> None:
    job = running(engine, "a")
    with engine.begin() as connection:
        records.requeue(connection, job.id, owner="a", now=NOW)

    given_back = read(engine, job)
    assert (given_back.state, given_back.tries, given_back.started_at) == ("queued", 0, None)


def begin(engine: Engine, job: Job, *, owner: str = "a") -> None:
    with engine.begin() as connection:
        records.begin(connection, job.id, owner=owner)


def test_a_run_that_begins_anew_covers_what_came_before(engine: Engine) -> None:
    """The note of a trailing run falls away where the job reads again from its start."""
    job = running(engine, "a")
    begin(engine, job)
    trigger(engine)
    with engine.begin() as connection:
        records.try_again(connection, job.id, owner="a", now=NOW)
    begin(engine, job)
    assert finish(engine, job) is None

    job = running(engine, "a")
    trigger(engine)
    with engine.begin() as connection:
        records.requeue(connection, job.id, owner="a", now=NOW)
        records.claim(connection, job.id, owner="a", now=NOW)
    begin(engine, job)
    assert finish(engine, job) is None


def test_a_trigger_that_meets_a_job_that_came_back_is_covered_however_it_ends(
    engine: Engine,
) -> None:
    """The job may have published before its worker was lost, and then it does not read again."""
    job = running(engine, "a")
    with engine.begin() as connection:
        leases.release_expired(connection, now=AFTER_LEASE)
    assert trigger(engine).job.id == job.id
    with engine.begin() as connection:
        assert records.claim(connection, job.id, owner="b", now=AFTER_LEASE) is not None

    assert finish(engine, job, owner="b") is not None


def test_a_job_whose_workers_are_always_lost_leaves_the_run_that_was_wanted(
    engine: Engine,
) -> None:
    job = running(engine, "w1")
    for number in range(2, MAX_TRIES + 1):
        with engine.begin() as connection:
            leases.release_expired(connection, now=AFTER_LEASE)
            records.claim(connection, job.id, owner=f"w{number}", now=NOW)
    trigger(engine, origin="api")

    with engine.begin() as connection:
        leases.release_expired(connection, now=AFTER_LEASE)
        left = records.queued(connection, "precompute")

    assert left is not None
    assert (left.origin, left.tries) == ("api", 0)


def test_a_clock_set_back_makes_no_lease_longer(engine: Engine) -> None:
    """A worker that lives renews in time; the job of one that is gone does not wait for a day."""
    job = running(engine, "a")
    before = NOW - timedelta(days=1)
    with engine.begin() as connection:
        assert leases.release_expired(connection, now=before) == []
        after = before + timedelta(seconds=LEASE_SECONDS + 1)
        assert [each.id for each in leases.release_expired(connection, now=after)] == [job.id]


# --- cancelling -------------------------------------------------------------------------------


def cancel(engine: Engine, job: Job, *, now: datetime = NOW) -> cancelling.Cancelled:
    with engine.begin() as connection:
        return cancelling.cancel(connection, job.id, now=now)


def test_a_queued_job_is_cancelled_at_once_and_makes_room(engine: Engine) -> None:
    job = trigger(engine).job

    cancelled = cancel(engine, job)

    assert (cancelled.job.state, cancelled.job.finished_at, cancelled.is_new) == (
        "cancelled",
        NOW,
        True,
    )
    assert not cancel(engine, job).is_new
    with engine.begin() as connection:
        assert records.claim(connection, job.id, owner="a", now=NOW) is None
    assert not trigger(engine).is_coalesced


def test_a_running_job_that_is_cancelled_may_neither_go_on_nor_publish(engine: Engine) -> None:
    job = running(engine)

    assert cancel(engine, job).job.state == "running"

    steps: list[Callable[[Connection], object]] = [
        lambda connection: records.check_owner(connection, job.id, owner="a"),
        lambda connection: records.begin(connection, job.id, owner="a"),
        lambda connection: records.try_again(connection, job.id, owner="a", now=NOW),
        lambda connection: records.heartbeat(
            connection,
            job.id,
            owner="a",
            now=NOW,
            progress=0.5,
            stage="lists",
            stages=[],
            peak_rss_mb=None,
        ),
    ]
    for step in steps:
        with pytest.raises(JobCancelled), engine.begin() as connection:
            step(connection)
    assert finish(engine, job, state="cancelled") is None
    assert read(engine, job).state == "cancelled"


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_a_job_that_ended_otherwise_is_not_cancelled(engine: Engine, state: str) -> None:
    job = running(engine)
    finish(engine, job, state=state)
    ended = read(engine, job)

    with pytest.raises(JobEnded, match=state):
        cancel(engine, job)

    assert read(engine, job) == ended


def test_a_cancelled_job_takes_the_run_noted_before_with_it_and_no_later_one(
    engine: Engine,
) -> None:
    job = running(engine)
    trigger(engine)
    cancel(engine, job)
    assert finish(engine, job, state="cancelled") is None

    job = running(engine)
    cancel(engine, job)
    trigger(engine, origin="api")
    trailing = finish(engine, job, state="cancelled")
    assert trailing is not None
    assert (trailing.state, trailing.origin) == ("queued", "api")


def test_a_cancelled_job_ends_without_its_worker(engine: Engine) -> None:
    """Lost, stopped, or lost before the wish: it is never run again."""
    job = running(engine)
    cancel(engine, job)
    with engine.begin() as connection:
        (released,) = leases.release_expired(connection, now=AFTER_LEASE)
    assert released.state == "cancelled"

    job = running(engine)
    cancel(engine, job)
    with engine.begin() as connection:
        records.requeue(connection, job.id, owner="a", now=NOW)
    assert read(engine, job).state == "cancelled"

    job = running(engine)
    assert cancel(engine, job, now=AFTER_LEASE).job.state == "cancelled"


def test_cancels_and_claims_at_once_agree(engine: Engine) -> None:
    """Whoever comes first: nobody runs a job that was said to be cancelled."""
    for _ in range(20):
        job = trigger(engine).job

        def cancel_or_claim(place: int, job: Job = job) -> str:
            if place:
                return cancel(engine, job).job.state
            with engine.begin() as connection:
                claimed = records.claim(connection, job.id, owner="a", now=NOW)
            return "missed" if claimed is None else "claimed"

        outcomes = set(at_once(3, cancel_or_claim))

        assert outcomes in ({"cancelled", "missed"}, {"running", "claimed"})
        if "running" in outcomes:
            finish(engine, job, state="cancelled")


# --- slots ------------------------------------------------------------------------------------


def trigger_slot(engine: Engine, *, slot: datetime, now: datetime) -> Job | None:
    with engine.begin() as connection:
        return slots.trigger_slot(connection, kind="precompute", origin="cron", slot=slot, now=now)


def test_ten_workers_at_one_slot_queue_one_job(engine: Engine) -> None:
    queued = at_once(10, lambda _: trigger_slot(engine, slot=NOW, now=NOW))

    assert len([job for job in queued if job]) == 1


def test_a_slot_whose_run_has_ended_is_not_run_again(engine: Engine) -> None:
    second = timedelta(seconds=1)
    job = trigger_slot(engine, slot=NOW, now=NOW + second)
    assert job is not None
    with engine.begin() as connection:
        records.claim(connection, job.id, owner="a", now=NOW)
        records.finish(connection, job.id, owner="a", state="failed", now=NOW + second)

    assert trigger_slot(engine, slot=NOW, now=NOW + 2 * second) is None
    assert trigger_slot(engine, slot=NOW + 60 * second, now=NOW + 60 * second) is not None


def test_a_slot_during_a_run_asks_for_nothing_more(engine: Engine) -> None:
    job = running(engine)  # began at NOW
    slot = NOW + timedelta(seconds=1)
    assert trigger_slot(engine, slot=slot, now=slot) is None
    with engine.begin() as connection:
        later = slot + timedelta(seconds=5)
        assert records.finish(connection, job.id, owner="a", state="succeeded", now=later) is None

    assert trigger_slot(engine, slot=slot, now=slot + timedelta(seconds=9)) is None


def test_a_clock_that_was_ahead_leaves_no_day_without_runs(engine: Engine) -> None:
    """A run of tomorrow, by a clock that has been set right since, is not that of today's slots."""
    tomorrow = NOW + timedelta(days=1)
    job = trigger_slot(engine, slot=tomorrow, now=tomorrow)
    assert job is not None
    with engine.begin() as connection:
        records.claim(connection, job.id, owner="a", now=tomorrow)
        records.finish(connection, job.id, owner="a", state="succeeded", now=tomorrow)

    for hours in range(1, 4):
        slot = NOW + timedelta(hours=hours)
        job = trigger_slot(engine, slot=slot, now=slot + timedelta(seconds=1))
        assert job is not None
        with engine.begin() as connection:
            records.claim(connection, job.id, owner="a", now=slot)
            records.finish(connection, job.id, owner="a", state="succeeded", now=slot)
        back = slot + timedelta(seconds=-3)
        assert trigger_slot(engine, slot=slot, now=back) is None  # set back a little: not again


# --- clock and workers ------------------------------------------------------------------------


def test_the_database_tells_the_time(engine: Engine) -> None:
    with engine.connect() as connection:
        first = database_time(connection)
        second = database_time(connection)
    assert first.utcoffset() == timedelta(0)
    assert timedelta(0) <= second - first < timedelta(seconds=5)
    assert abs(first - datetime.now(UTC)) < timedelta(seconds=5)


def test_workers_are_seen_while_they_beat(engine: Engine) -> None:
    first = workers.Worker(id="w1", kind="arq", host="one", pid=11)
    second = workers.Worker(id="w2", kind="embedded", host="two", pid=22)
    later = NOW + timedelta(seconds=20)
    with engine.begin() as connection:
        workers.beat(connection, first, state="idle", now=NOW)
        workers.beat(connection, second, state="idle", now=NOW)
        workers.beat(connection, second, state="running", now=later)

        both = workers.seen(connection, now=later)
        one = workers.seen(connection, now=NOW + timedelta(seconds=40))
        workers.forget(connection, second)
        none = workers.seen(connection, now=NOW + timedelta(seconds=40))

    assert [(each.id, each.state) for each in both] == [("w2", "running"), ("w1", "idle")]
    assert [(each.id, each.started_at, each.seen_at) for each in one] == [("w2", NOW, later)]
    assert none == []


def test_workers_not_seen_for_an_hour_are_forgotten(engine: Engine) -> None:
    old = workers.Worker(id="old", kind="arq", host="one", pid=11)
    new = workers.Worker(id="new", kind="arq", host="one", pid=12)
    later = NOW + timedelta(seconds=workers.KEEP_SECONDS + 1)
    with engine.begin() as connection:
        workers.beat(connection, old, state="idle", now=NOW)
        workers.beat(connection, new, state="idle", now=later)
        seen = workers.seen(connection, now=later, within_seconds=10 * workers.KEEP_SECONDS)
    assert [each.id for each in seen] == ["new"]
