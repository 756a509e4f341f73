"""Jobs that workers queue by themselves: once a time slot, however many workers there are.

All workers evaluate the same slots by the same clock; the table decides which of them is served.
"""

import uuid
from datetime import datetime, timedelta

from sqlalchemy import Connection, exists, insert, literal, or_, select
from sqlalchemy.exc import IntegrityError

from shared.db.models import JobRow
from shared.jobs.job import ACTIVE_STATES, Job, Kind
from shared.jobs.records import get, queued_row

STEP_SECONDS = 300.0  # a clock set back by less has its runs of the future still


def trigger_slot(
    connection: Connection, *, kind: Kind, origin: str, slot: datetime, now: datetime
) -> Job | None:
    """Queues the run of a slot; None when it has its run: one active at `slot` or begun since.

    Runs that lie far ahead are of a clock that was set back since, and serve no slot of now.
    """
    job_id = uuid.uuid4().hex
    row = queued_row(job_id, kind=kind, origin=origin, now=now)
    latest = now + timedelta(seconds=STEP_SECONDS)
    served = exists().where(
        JobRow.kind == kind,
        or_(
            JobRow.state.in_(ACTIVE_STATES),
            JobRow.created_at.between(slot, latest),
            JobRow.finished_at.between(slot, latest),
        ),
    )
    columns = JobRow.__table__.c
    values = select(*(literal(value, columns[name].type) for name, value in row.items()))
    try:
        with connection.begin_nested():
            inserted = connection.execute(
                insert(JobRow).from_select(list(row), values.where(~served))
            )
    except IntegrityError:
        return None  # another worker was faster
    return get(connection, job_id) if inserted.rowcount == 1 else None
