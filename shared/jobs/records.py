"""Job records in the database: who may run what, decided by rows and not by the queue.

Functions take an open `sqlalchemy.Connection` and leave the transaction to the caller; the
asynchronous API calls them through `AsyncConnection.run_sync`. A unique index allows one queued
or running row a kind, so fifty triggers at once end in one job. A running job belongs to the
worker that holds its lease; one that runs out (`leases.py`) makes the job claimable again, three
tries in all. Workers take `now` from the database (`shared/jobs/clock.py`), so that leases mean the
same on every machine.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from shared.db.models import JobRow
from shared.errors import JobCancelled, JobLost, JobNotFound
from shared.jobs.job import ACTIVE_STATES, LEASE_SECONDS, Job, Kind, State

_COLUMNS = [
    JobRow.id,
    JobRow.kind,
    JobRow.state,
    JobRow.origin,
    JobRow.progress,
    JobRow.stage,
    JobRow.stages,
    JobRow.peak_rss_mb,
    JobRow.error,
    JobRow.snapshot_version,
    JobRow.created_at,
    JobRow.started_at,
    JobRow.finished_at,
    JobRow.tries,
]
NO_LEASE: dict[str, Any] = {"lease_owner": None, "lease_expires_at": None}
BACK_IN_QUEUE: dict[str, Any] = {
    **NO_LEASE,
    "state": "queued",
    "started_at": None,
    "stage": None,
    "stages": [],
    "progress": 0,
}
_LOST = "the job was taken over by another worker"
_CANCELLED = "the job was cancelled"
_TRIGGER_ROUNDS = 10  # each round lost means that a job ended or began meanwhile


@dataclass(frozen=True, slots=True)
class Triggered:
    """`is_coalesced` when an active job was there already and is returned instead."""

    job: Job
    is_coalesced: bool


def trigger(
    connection: Connection, *, kind: Kind, origin: str, now: datetime, wants_rerun: bool = True
) -> Triggered:
    """Queues a job, or joins the active one.

    Joining a running job notes, where `wants_rerun`, that a trailing run is wanted: data that
    arrived after the run began is covered by one more run, however many triggers came.
    """
    for _ in range(_TRIGGER_ROUNDS):
        job_id = uuid.uuid4().hex
        try:
            with connection.begin_nested():
                connection.execute(
                    insert(JobRow).values(queued_row(job_id, kind=kind, origin=origin, now=now))
                )
            return Triggered(get(connection, job_id), is_coalesced=False)
        except IntegrityError:
            active = connection.execute(_active(kind)).one_or_none()
        if active is None:
            continue  # it ended between the insert and the select
        # One that came back to the queue may have published before it was lost, and not run again.
        if wants_rerun and (active.state == "running" or active.tries):
            noted = connection.execute(
                update(JobRow)
                .where(JobRow.id == active.id, JobRow.state == active.state)
                .values(rerun_origin=origin)
            )
            if noted.rowcount != 1:
                continue  # it changed just now, and what it did not see would stay unseen
        return Triggered(_job(active), is_coalesced=True)
    raise JobLost("the job table changed faster than a trigger could follow")


def queued_row(job_id: str, *, kind: Kind, origin: str, now: datetime) -> dict[str, Any]:
    """The columns of a new job; all others have defaults."""
    identity = {"id": job_id, "kind": kind, "state": "queued", "origin": origin}
    return {**identity, "stages": [], "created_at": now}


def get(connection: Connection, job_id: str) -> Job:
    """Raises JobNotFound."""
    row = connection.execute(select(*_COLUMNS).where(JobRow.id == job_id)).one_or_none()
    if row is None:
        raise JobNotFound("there is no such job")
    return _job(row)


def newest(
    connection: Connection, *, limit: int, before: tuple[datetime, str] | None = None
) -> Sequence[Job]:
    """Newest first; `before` is the (created_at, id) of the last one already seen."""
    statement = select(*_COLUMNS).order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)
    if before is not None:
        at, job_id = before
        statement = statement.where(
            or_(JobRow.created_at < at, (JobRow.created_at == at) & (JobRow.id < job_id))
        )
    return [_job(row) for row in connection.execute(statement)]


def queued(connection: Connection, kind: Kind) -> Job | None:
    """The job that waits to be claimed, if there is one."""
    row = connection.execute(_active(kind).where(JobRow.state == "queued")).one_or_none()
    return None if row is None else _job(row)


def claim(connection: Connection, job_id: str, *, owner: str, now: datetime) -> Job | None:
    """Takes the lease of a queued job; None when another worker was faster."""
    taken = connection.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state == "queued")
        .values(
            state="running",
            lease_owner=owner,
            lease_expires_at=now + timedelta(seconds=LEASE_SECONDS),
            started_at=now,
            tries=JobRow.tries + 1,
            progress=0,
            stage=None,
            stages=[],
            peak_rss_mb=None,
            error=None,
        )
    )
    return get(connection, job_id) if taken.rowcount == 1 else None


def try_again(connection: Connection, job_id: str, *, owner: str, now: datetime) -> None:
    """Counts one more try of a running job by the owner that has it.

    Raises JobLost; JobCancelled, and nothing is to be written then.
    """
    _update_wanted(
        connection,
        job_id,
        owner,
        lease_expires_at=now + timedelta(seconds=LEASE_SECONDS),
        tries=JobRow.tries + 1,
        progress=0,
        stage=None,
        stages=[],
    )


def begin(connection: Connection, job_id: str, *, owner: str) -> None:
    """Right before a run reads the first row: what was noted until now is covered by this run.

    Raises JobLost, JobCancelled.
    """
    _update_wanted(connection, job_id, owner, rerun_origin=None)


def heartbeat(
    connection: Connection,
    job_id: str,
    *,
    owner: str,
    now: datetime,
    progress: float,
    stage: str | None,
    stages: list[dict[str, Any]],
    peak_rss_mb: float | None,
) -> None:
    """Renews the lease and notes progress.

    Raises JobLost when another owner took the job; JobCancelled when it was asked to end.
    """
    _update_wanted(
        connection,
        job_id,
        owner,
        lease_expires_at=now + timedelta(seconds=LEASE_SECONDS),
        progress=progress,
        stage=stage,
        stages=stages,
        peak_rss_mb=peak_rss_mb,
    )


def check_owner(connection: Connection, job_id: str, *, owner: str) -> None:
    """Raises JobLost unless `owner` still holds the running job; JobCancelled."""
    row = connection.execute(
        select(JobRow.cancel_requested_at).where(
            JobRow.id == job_id, JobRow.state == "running", JobRow.lease_owner == owner
        )
    ).one_or_none()
    if row is None:
        raise JobLost(_LOST)
    if row.cancel_requested_at is not None:
        raise JobCancelled(_CANCELLED)


def finish(
    connection: Connection,
    job_id: str,
    *,
    owner: str,
    state: State,
    now: datetime,
    error: str | None = None,
    snapshot_version: str | None = None,
    stages: list[dict[str, Any]] | None = None,
    peak_rss_mb: float | None = None,
) -> Job | None:
    """Records the outcome and returns the trailing job, queued when one was wanted.

    Raises JobLost when the job is no longer this owner's.
    """
    values: dict[str, Any] = {
        "state": state,
        "error": error,
        "snapshot_version": snapshot_version,
        "finished_at": now,
        **NO_LEASE,
    }
    if state == "succeeded":
        values |= {"progress": 1, "stage": None}
    if stages is not None:
        values["stages"] = stages
    if peak_rss_mb is not None:
        values["peak_rss_mb"] = peak_rss_mb
    _update_owned(connection, job_id, owner, **values)
    return queue_trailing(connection, job_id, now=now)


def queue_trailing(connection: Connection, job_id: str, *, now: datetime) -> Job | None:
    """The job that follows one that has ended in this transaction, if one was wanted."""
    # Read after the update: a trigger that came before it is seen, a later one finds no active job.
    wanted = connection.execute(
        select(JobRow.kind, JobRow.rerun_origin).where(JobRow.id == job_id)
    ).one()
    if wanted.rerun_origin is None:
        return None
    return trigger(connection, kind=wanted.kind, origin=wanted.rerun_origin, now=now).job


def requeue(connection: Connection, job_id: str, *, owner: str, now: datetime) -> Job | None:
    """Gives a running job back at an orderly stop; the interrupted try does not count.

    One that was asked to end is cancelled. Returns its trailing job then, queued when one was
    wanted. Raises JobLost.
    """
    tries = JobRow.tries - 1
    if not _update_owned(connection, job_id, owner, tries=tries, **BACK_IN_QUEUE):
        return None
    connection.execute(
        update(JobRow).where(JobRow.id == job_id).values(state="cancelled", finished_at=now)
    )
    return queue_trailing(connection, job_id, now=now)


def _update_wanted(connection: Connection, job_id: str, owner: str, **values: Any) -> None:
    if _update_owned(connection, job_id, owner, **values):
        raise JobCancelled(_CANCELLED)


def _update_owned(connection: Connection, job_id: str, owner: str, **values: Any) -> bool:
    """Returns whether the job was asked to end. Raises JobLost."""
    row = connection.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state == "running", JobRow.lease_owner == owner)
        .values(values)
        .returning(JobRow.cancel_requested_at)
    ).one_or_none()
    if row is None:
        raise JobLost(_LOST)
    return row.cancel_requested_at is not None


def _active(kind: str) -> Any:
    return select(*_COLUMNS).where(JobRow.kind == kind, JobRow.state.in_(ACTIVE_STATES))


def _job(row: Any) -> Job:
    return Job(*row[: len(_COLUMNS)])
