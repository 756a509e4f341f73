"""An operator's wish that a job ends.

A queued job is cancelled at once. A running one is asked to end: its worker ends the computing
process within seconds, and until then the snapshot may still be published; then the job ends as
`succeeded`, so that a cancelled job has published nothing. The trailing run that was noted before
the wish goes with the job; a trigger that comes after it gets its run.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, func, literal, or_, update

from shared.db.models import JobRow, UtcDateTime
from shared.errors import JobEnded, JobLost
from shared.jobs.job import Job
from shared.jobs.records import NO_LEASE, get

_ROUNDS = 10  # each round lost means that the job was claimed or given back meanwhile


@dataclass(frozen=True, slots=True)
class Cancelled:
    """`is_new` when this call made a difference: not when the job was cancelled before."""

    job: Job
    is_new: bool


def cancel(connection: Connection, job_id: str, *, now: datetime) -> Cancelled:
    """Cancels a job that waits or whose worker is lost; asks a running one to end.

    Raises JobNotFound; JobEnded where it has succeeded or failed.
    """
    is_idle = or_(
        JobRow.state == "queued", and_(JobRow.state == "running", JobRow.lease_expires_at < now)
    )
    for _ in range(_ROUNDS):
        ended = connection.execute(
            update(JobRow)
            .where(JobRow.id == job_id, is_idle)
            .values(state="cancelled", finished_at=now, rerun_origin=None, **NO_LEASE)
        )
        if ended.rowcount == 1:
            return Cancelled(get(connection, job_id), is_new=True)
        asked = connection.execute(
            update(JobRow)
            .where(JobRow.id == job_id, JobRow.state == "running")
            .values(
                cancel_requested_at=func.coalesce(
                    JobRow.cancel_requested_at, literal(now, UtcDateTime())
                ),
                rerun_origin=None,
            )
        )
        job = get(connection, job_id)
        if asked.rowcount == 1:
            return Cancelled(job, is_new=True)
        if job.state == "cancelled":
            return Cancelled(job, is_new=False)
        if not job.is_active:
            raise JobEnded(f"the job has {job.state} already")
    raise JobLost("the job changed hands faster than it could be cancelled")
