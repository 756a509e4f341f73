"""Leases of workers that are gone: their jobs are queued again, or end.

A lease is an instant of the database's clock. Where that clock is set back, a lease would last as
much longer: it is cut to what a lease is, which a worker that lives renews long before.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, or_, select, update

from shared.db.models import JobRow
from shared.jobs.job import LEASE_SECONDS, MAX_TRIES, Job
from shared.jobs.records import BACK_IN_QUEUE, NO_LEASE, get, queue_trailing

CLOCK_SECONDS = 60.0  # how far a lease may lie ahead before the clock must have been set back


def release_expired(
    connection: Connection, *, now: datetime, spare_owner: str | None = None
) -> Sequence[Job]:
    """Jobs whose worker was lost, as they are now: queued again while tries are left, else failed;
    cancelled where that was asked for.

    A worker names itself as `spare_owner`: awake again after a pause, or after the clock was set,
    it renews its own lease instead of giving up its work.
    """
    longest = now + timedelta(seconds=LEASE_SECONDS)
    ahead = longest + timedelta(seconds=CLOCK_SECONDS)
    columns = (
        JobRow.id,
        JobRow.tries,
        JobRow.lease_owner,
        JobRow.lease_expires_at,
        JobRow.cancel_requested_at,
    )
    # Read first: with SQLite even a change of no row keeps every other writer waiting.
    found = select(*columns).where(
        JobRow.state == "running",
        or_(JobRow.lease_expires_at < now, JobRow.lease_expires_at > ahead),
    )
    released = []
    for row in connection.execute(found).all():
        if row.lease_expires_at > ahead:
            _set(connection, row, lease_expires_at=longest)
            continue
        if row.lease_owner == spare_owner:
            continue
        values: dict[str, Any] = BACK_IN_QUEUE
        if row.cancel_requested_at is not None:
            values = {**NO_LEASE, "state": "cancelled", "finished_at": now}
        elif row.tries >= MAX_TRIES:
            reason = f"the worker was lost {row.tries} times while the job ran"
            values = {**NO_LEASE, "state": "failed", "error": reason, "finished_at": now}
        if _set(connection, row, **values):
            job = get(connection, row.id)
            if not job.is_active:
                queue_trailing(connection, job.id, now=now)
            released.append(job)
    return released


def _set(connection: Connection, row: Any, **values: Any) -> bool:
    """Changes a running job; False where its lease was renewed or lost meanwhile."""
    changed = connection.execute(
        update(JobRow)
        .where(
            JobRow.id == row.id,
            JobRow.state == "running",
            JobRow.lease_owner == row.lease_owner,
            JobRow.lease_expires_at == row.lease_expires_at,
        )
        .values(values)
    )
    return changed.rowcount == 1
