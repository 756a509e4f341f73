"""The job function `precompute`: claim, run in a child process, record the outcome.

The queue and the look-around call it with a job id; whether there is anything to do, and who may
do it, the job's row says. This is the one place where errors become the reasons of failed jobs.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from shared import metrics
from shared.errors import DatabaseUnavailable, JobLost, TasteMatchError
from shared.jobs import records
from shared.jobs.clock import database_time
from shared.jobs.job import HEARTBEAT_SECONDS, MAX_TRIES, Job, State
from shared.logs import get_logger
from shared.peak_memory import peak_rss_mb
from worker.child import Ending, PrecomputeChild, Report, one_line
from worker.threads import Transactions

COMMAND = (sys.executable, "-m", "worker.precompute")
RUN_SECONDS = 6 * 3600.0
TELL_SECONDS = 0.5  # news of the child are written at most this often
RETRY_SECONDS = 1.0  # after a child was killed; doubles
RECORD_SECONDS = 5.0  # the longest wait between attempts to write an outcome
STOP_SECONDS = 3.0  # for the database when the worker stops

log = get_logger("worker.jobs")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one try ended. `killed` may be tried again; `stopped` and `lost` are no one's fault."""

    state: Literal["succeeded", "failed", "killed", "stopped", "lost"]
    reason: str | None = None
    kind: str | None = None
    """Class name of the error that the child told."""
    version: str | None = None
    report: Report = field(default_factory=Report)


async def run_precompute(
    transactions: Transactions,
    job_id: str,
    *,
    owner: str,
    stop: asyncio.Event,
    command: Sequence[str] = COMMAND,
) -> Job | None:
    """Runs the job if it waits to be run, and returns the trailing job where one was queued.

    When `stop` is set the child is ended and the job given back. Raises DatabaseUnavailable only
    where the job could not be claimed.
    """
    job = await transactions.run(
        lambda connection: records.claim(
            connection, job_id, owner=owner, now=database_time(connection)
        )
    )
    if job is None:
        log.debug("job.not_waiting", job_id=job_id)
        return None
    return await run_claimed(transactions, job, owner=owner, stop=stop, command=command)


async def run_claimed(
    transactions: Transactions,
    job: Job,
    *,
    owner: str,
    stop: asyncio.Event,
    command: Sequence[str] = COMMAND,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> Job | None:
    """Runs a job whose lease `owner` holds, and returns the trailing job where one was queued."""
    log.info("job.started", job_id=job.id, origin=job.origin, tries=job.tries)
    started = time.monotonic()
    try:
        outcome = await _run(transactions, job, owner=owner, stop=stop, command=command)
    except JobLost:
        outcome = Outcome("lost")
    except TasteMatchError as error:
        outcome = Outcome("failed", reason=error.message)
    except Exception as error:
        log.exception("job.crashed", job_id=job.id)
        outcome = Outcome("failed", reason=f"unexpected {type(error).__name__} in the worker")
    on_outcome(outcome)
    return await _record(transactions, job, outcome, owner=owner, stop=stop, started=started)


async def _run(
    transactions: Transactions,
    job: Job,
    *,
    owner: str,
    stop: asyncio.Event,
    command: Sequence[str],
) -> Outcome:
    """Tries until the child has said how it went or the tries are used up. Raises JobLost."""
    words = [*command, "--origin", job.origin, "--job-id", job.id, "--owner", owner]
    for tries in range(job.tries, MAX_TRIES + 1):
        outcome = await _try(transactions, job, words, owner=owner, stop=stop)
        if outcome.state != "killed" or tries == MAX_TRIES:
            break
        wait_seconds = RETRY_SECONDS * 2 ** (tries - job.tries)
        log.warning(
            "job.child_killed", job_id=job.id, reason=outcome.reason, retry_in_s=wait_seconds
        )
        if await happens_within(stop, wait_seconds):
            return Outcome("stopped")
        await transactions.run(
            lambda connection: records.try_again(
                connection, job.id, owner=owner, now=database_time(connection)
            )
        )
    return outcome


async def _try(
    transactions: Transactions, job: Job, words: list[str], *, owner: str, stop: asyncio.Event
) -> Outcome:
    try:
        child = await PrecomputeChild.start(words)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return Outcome("failed", reason=f"the precompute process could not be started ({reason})")
    ending = asyncio.create_task(child.ending())
    lease = asyncio.create_task(_keep_lease(transactions, job.id, child, owner=owner))
    stopping = asyncio.create_task(stop.wait())
    tasks = (ending, lease, stopping)
    try:
        await asyncio.wait(tasks, timeout=RUN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            return _outcome(ending.result(), child.report)
        if lease.done():
            lease.result()
        if stopping.done():
            return Outcome("stopped")
        reason = f"it took longer than {RUN_SECONDS / 3600:g} hours"
        return Outcome("failed", reason=reason, report=child.report)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await child.end()


async def _keep_lease(
    transactions: Transactions, job_id: str, child: PrecomputeChild, *, owner: str
) -> None:
    """Renews the lease and forwards what the child tells, until cancelled. Raises JobLost."""
    while True:
        if await happens_within(child.changed, HEARTBEAT_SECONDS):
            child.changed.clear()
            metrics.job_progressed("precompute", child.report.progress)
        try:
            await transactions.run(
                lambda connection: records.heartbeat(
                    connection,
                    job_id,
                    owner=owner,
                    now=database_time(connection),
                    progress=child.report.progress,
                    stage=child.report.stage,
                    stages=child.report.stages,
                    peak_rss_mb=_tree_mb(child.report),
                )
            )
        except DatabaseUnavailable as error:
            # No other worker can take the job meanwhile: they need the database too.
            log.warning("job.heartbeat_failed", job_id=job_id, reason=error.message)
        await asyncio.sleep(TELL_SECONDS)


def _outcome(ending: Ending, report: Report) -> Outcome:
    if ending.manifest is not None:
        return Outcome("succeeded", version=str(ending.manifest.get("version")), report=report)
    if ending.error_kind == JobLost.__name__:
        return Outcome("lost")
    if ending.error is not None:
        return Outcome("failed", reason=ending.error, kind=ending.error_kind, report=report)
    if ending.signal_number is not None:
        cause = ", probably out of memory" if ending.signal_number == signal.SIGKILL else ""
        reason = f"killed by signal {ending.signal_number}{cause}"
        return Outcome("killed", reason=reason, report=report)
    reason = f"the precompute process ended with status {ending.exit_status} and gave no result"
    return Outcome("failed", reason=f"{reason}; the worker's log says why", report=report)


async def _record(
    transactions: Transactions,
    job: Job,
    outcome: Outcome,
    *,
    owner: str,
    stop: asyncio.Event,
    started: float,
) -> Job | None:
    """Writes the outcome, however long the database is away, unless the worker stops."""
    seconds = round(time.monotonic() - started, 3)
    if outcome.state == "lost":
        log.warning("job.lost", job_id=job.id, elapsed_s=seconds)
        return None
    wait_seconds = TELL_SECONDS
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


async def _write(
    transactions: Transactions, job: Job, outcome: Outcome, *, owner: str
) -> Job | None:
    if outcome.state == "stopped":
        await transactions.run(
            lambda connection: records.requeue(connection, job.id, owner=owner),
            timeout_seconds=STOP_SECONDS,
        )
        return None
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
            peak_rss_mb=_tree_mb(outcome.report),
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
    else:
        log.error("job.failed", reason=outcome.reason, **fields)
    metrics.job_ended(
        kind=job.kind,
        state=state,
        origin=job.origin,
        seconds=seconds,
        stages=outcome.report.stages,
        peak_rss_mb=_tree_mb(outcome.report),
        now=time.time(),
    )


def _state(outcome: Outcome) -> State:
    return "succeeded" if outcome.state == "succeeded" else "failed"


def _tree_mb(report: Report) -> float:
    """Peak memory of worker and child together, in MiB."""
    return round(peak_rss_mb() + report.rss_mb, 1)


async def happens_within(event: asyncio.Event, seconds: float) -> bool:
    """Waits for the event, but not longer."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
