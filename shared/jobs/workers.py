"""Which workers are alive: a row each in the database, renewed every few seconds.

The readiness check of the API counts them (`liveness.py`). Like the job records, these functions
take an open connection and leave the transaction to the caller; `now` is the database's clock
(`shared/jobs/clock.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, delete, insert, select, update

from shared.db.models import WorkerRow
from shared.jobs.liveness import SEEN_WITHIN_SECONDS

WorkerKind = Literal["arq", "embedded"]
WorkerState = Literal["idle", "running"]

BEAT_SECONDS = 5.0
KEEP_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Worker:
    """`id` is of one process: a worker that starts again has another one."""

    id: str
    kind: WorkerKind
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class SeenWorker:
    id: str
    kind: str
    host: str
    pid: int
    state: str
    started_at: datetime
    seen_at: datetime


def beat(connection: Connection, worker: Worker, *, state: WorkerState, now: datetime) -> None:
    """Says that the worker is alive, and forgets those not seen for an hour."""
    renewed = connection.execute(
        update(WorkerRow).where(WorkerRow.id == worker.id).values(state=state, seen_at=now)
    )
    if renewed.rowcount == 1:
        return
    connection.execute(
        insert(WorkerRow).values(
            id=worker.id,
            kind=worker.kind,
            host=worker.host,
            pid=worker.pid,
            state=state,
            started_at=now,
            seen_at=now,
        )
    )
    connection.execute(
        delete(WorkerRow).where(WorkerRow.seen_at < now - timedelta(seconds=KEEP_SECONDS))
    )


def seen(
    connection: Connection, *, now: datetime, within_seconds: float = SEEN_WITHIN_SECONDS
) -> Sequence[SeenWorker]:
    """The workers seen lately, the last one first; none means that no job would be run."""
    columns = (
        WorkerRow.id,
        WorkerRow.kind,
        WorkerRow.host,
        WorkerRow.pid,
        WorkerRow.state,
        WorkerRow.started_at,
        WorkerRow.seen_at,
    )
    statement = (
        select(*columns)
        .where(WorkerRow.seen_at >= now - timedelta(seconds=within_seconds))
        .order_by(WorkerRow.seen_at.desc(), WorkerRow.id)
    )
    return [SeenWorker(*row) for row in connection.execute(statement)]


def forget(connection: Connection, worker: Worker) -> None:
    """Removes a worker that ends in good order."""
    connection.execute(delete(WorkerRow).where(WorkerRow.id == worker.id))
