"""What the end of a computing process means for its job, and how that gets into the job's row.

What was published counts, however the process ended afterwards: a job that is told to end too late
has succeeded, and a cancelled one has published nothing.
"""

import asyncio
import signal
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from shared import metrics
from shared.errors import DatabaseUnavailable, JobCancelled, JobLost
from shared.jobs import records
from shared.jobs.clock import database_time
from shared.jobs.job import Job, State
from shared.logs import get_logger
from shared.peak_memory import peak_rss_mb
from worker.child import Ending, Report, one_line
from worker.threads import Transactions
from worker.waiting import happens_within

FIRST_RECORD_SECONDS = 0.5  # before an outcome that could not be written is written again; doubles
RECORD_SECONDS = 5.0  # the longest wait between attempts to write an outcome
STOP_SECONDS = 3.0  # for the database when the worker stops

log = get_logger("worker.jobs")

_ENDED: dict[str, State] = {"succeeded": "succeeded", "cancelled": "cancelled"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one try ended. `killed` may be tried again; `stopped` and `lost` are no one's fault."""

    state: Literal["succeeded", "failed", "cancelled", "killed", "stopped", "lost"]
    reason: str | None = None
    kind: str | None = None
    """Class name of the error that the child told."""
    version: str | None = None
    report: Report = field(default_factory=Report)


def outcome_of(ending: Ending, report: Report) -> Outcome:
    """The outcome of a child that ended by itself."""
    if ending.error_kind == JobLost.__name__:
        return Outcome("lost")
    if ending.error_kind == JobCancelled.__name__:
        return Outcome("cancelled", report=report)
    if ending.manifest is not None:
        return Outcome("succeeded", version=str(ending.manifest.get("version")), report=report)
    if ending.error is not None:
        return Outcome("failed", reason=ending.error, kind=ending.error_kind, report=report)
    if ending.signal_number is not None:
        cause = ", probably out of memory" if ending.signal_number == signal.SIGKILL else ""
        reason = f"killed by signal {ending.signal_number}{cause}"
        return Outcome("killed", reason=reason, report=report)
    reason = f"the precompute process ended with status {ending.exit_status} and gave no result"
    return Outcome("failed", reason=f"{reason}; the worker's log says why", report=report)


def with_publication(outcome: Outcome, report: Report) -> Outcome:
    """The outcome once the child is gone: what it has published makes the job a success."""
    if report.published is None or outcome.state in ("succeeded", "lost"):
        return outcome
    log.warning("job.ended_late", version=report.published, state=outcome.state)
    return Outcome("succeeded", version=report.published, report=report)


async def record(
    transactions: Transactions,
    job: Job,
    outcome: Outcome,
    *,
    owner: str,
    stop: asyncio.Event,
    started: float,
) -> Job | None:
    """Writes the outcome, however long the database is away, unless the worker stops.

    Returns the trailing job where one was queued. started: `time.monotonic()` at the start.
    """
    seconds = round(time.monotonic() - started, 3)
    if outcome.state == "lost":
        log.warning("job.lost", job_id=job.id, elapsed_s=seconds)
        return None
    wait_seconds = FIRST_RECORD_SECONDS
    while True:
        try:
            trailing = await _write(transactions, job, outcome, owner=owner)
            break
        except JobLost:
            log.warning("job.lost", job_id=job.id, elapsed_s=seconds)
            return None
        except DatabaseUnavailable as error:
            log.warning("job.record_failed", job_id=job.id, reason=error.message)
            if await happens_within(stop, wait_seconds):
                return None  # its lease runs out, and another worker takes it
            wait_seconds = min(2 * wait_seconds, RECORD_SECONDS)
    _tell(job, outcome, seconds=seconds)
    return trailing


def tree_mb(report: Report) -> float:
    """Peak memory of worker and child together, in MiB."""
    return round(peak_rss_mb() + report.rss_mb, 1)


async def _write(
    transactions: Transactions, job: Job, outcome: Outcome, *, owner: str
) -> Job | None:
    if outcome.state == "stopped":
        return await transactions.run(
            lambda connection: records.requeue(
                connection, job.id, owner=owner, now=database_time(connection)
            ),
            timeout_seconds=STOP_SECONDS,
        )
    return await transactions.run(
        lambda connection: records.finish(
            connection,
            job.id,
            owner=owner,
            state=_state(outcome),
            now=database_time(connection),
            error=None if outcome.reason is None else one_line(outcome.reason),
            snapshot_version=outcome.version,
            stages=outcome.report.stages,
            peak_rss_mb=tree_mb(outcome.report),
        )
    )


def _tell(job: Job, outcome: Outcome, *, seconds: float) -> None:
    if outcome.state == "stopped":
        log.info("job.given_back", job_id=job.id, elapsed_s=seconds)
        return
    state = _state(outcome)
    fields: dict[str, Any] = {"job_id": job.id, "elapsed_s": seconds}
    if state == "succeeded":
        log.info("job.succeeded", version=outcome.version, **fields)
    elif state == "cancelled":
        log.info("job.cancelled", **fields)
    else:
        log.error("job.failed", reason=outcome.reason, **fields)
    metrics.job_ended(
        kind=job.kind,
        state=state,
        origin=job.origin,
        seconds=seconds,
        stages=outcome.report.stages,
        peak_rss_mb=tree_mb(outcome.report),
        now=time.time(),
    )


def _state(outcome: Outcome) -> State:
    return _ENDED.get(outcome.state, "failed")
