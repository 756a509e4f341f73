"""The job function `precompute`: claim, run in a child process, record the outcome.

The queue and the look-around call it with a job id; whether there is anything to do, and who may
do it, the job's row says. This is the one place where errors become the reasons of failed jobs.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence

from shared import metrics
from shared.errors import DatabaseUnavailable, JobCancelled, JobLost, TasteMatchError
from shared.jobs import records
from shared.jobs.clock import database_time
from shared.jobs.job import HEARTBEAT_SECONDS, MAX_TRIES, Job
from shared.logs import get_logger
from worker.child import PrecomputeChild, Report
from worker.outcomes import Outcome, outcome_of, record, tree_mb, with_publication
from worker.threads import Transactions
from worker.waiting import happens_within

COMMAND = (sys.executable, "-m", "worker.precompute")
RUN_SECONDS = 6 * 3600.0
TELL_SECONDS = 0.5  # news of the child are written at most this often
RETRY_SECONDS = 1.0  # after a child was killed; doubles

log = get_logger("worker.jobs")

OnReport = Callable[[Report], None]


async def run_precompute(
    transactions: Transactions,
    job_id: str,
    *,
    owner: str,
    stop: asyncio.Event,
    command: Sequence[str] = COMMAND,
    on_report: OnReport = lambda report: None,
) -> Job | None:
    """Runs the job if it waits to be run, and returns the trailing job where one was queued.

    When `stop` is set the child is ended and the job given back. `on_report` sees whatever the
    child tells. Raises DatabaseUnavailable only where the job could not be claimed.
    """
    job = await transactions.run(
        lambda connection: records.claim(
            connection, job_id, owner=owner, now=database_time(connection)
        )
    )
    if job is None:
        log.debug("job.not_waiting", job_id=job_id)
        return None
    return await run_claimed(
        transactions, job, owner=owner, stop=stop, command=command, on_report=on_report
    )


async def run_claimed(
    transactions: Transactions,
    job: Job,
    *,
    owner: str,
    stop: asyncio.Event,
    command: Sequence[str] = COMMAND,
    on_report: OnReport = lambda report: None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> Job | None:
    """Runs a job whose lease `owner` holds, and returns the trailing job where one was queued."""
    log.info("job.started", job_id=job.id, origin=job.origin, tries=job.tries)
    started = time.monotonic()
    try:
        outcome = await _run(
            transactions, job, owner=owner, stop=stop, command=command, on_report=on_report
        )
    except JobLost:
        outcome = Outcome("lost")
    except JobCancelled:
        outcome = Outcome("cancelled")
    except TasteMatchError as error:
        outcome = Outcome("failed", reason=error.message)
    except Exception as error:
        log.exception("job.crashed", job_id=job.id)
        outcome = Outcome("failed", reason=f"unexpected {type(error).__name__} in the worker")
    on_outcome(outcome)
    return await record(transactions, job, outcome, owner=owner, stop=stop, started=started)


async def _run(
    transactions: Transactions,
    job: Job,
    *,
    owner: str,
    stop: asyncio.Event,
    command: Sequence[str],
    on_report: OnReport,
) -> Outcome:
    """Tries until the child has said how it went or the tries are used up.

    Raises JobLost, JobCancelled.
    """
    words = [*command, "--origin", job.origin, "--job-id", job.id, "--owner", owner]
    for tries in range(job.tries, MAX_TRIES + 1):
        outcome = await _try(transactions, job, words, owner=owner, stop=stop, on_report=on_report)
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
    transactions: Transactions,
    job: Job,
    words: list[str],
    *,
    owner: str,
    stop: asyncio.Event,
    on_report: OnReport,
) -> Outcome:
    try:
        child = await PrecomputeChild.start(words)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return Outcome("failed", reason=f"the precompute process could not be started ({reason})")
    ending = asyncio.create_task(child.ending())
    lease = asyncio.create_task(
        _keep_lease(transactions, job.id, child, owner=owner, on_report=on_report)
    )
    stopping = asyncio.create_task(stop.wait())
    tasks = (ending, lease, stopping)
    try:
        await asyncio.wait(tasks, timeout=RUN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            outcome = outcome_of(ending.result(), child.report)
        elif lease.done():
            lease.result()
            raise AssertionError("a lease is kept until the child has ended")
        elif stopping.done():
            outcome = Outcome("stopped")
        else:
            reason = f"it took longer than {RUN_SECONDS / 3600:g} hours"
            outcome = Outcome("failed", reason=reason, report=child.report)
    except JobCancelled:
        outcome = Outcome("cancelled", report=child.report)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await child.end()
    return with_publication(outcome, child.report)


async def _keep_lease(
    transactions: Transactions,
    job_id: str,
    child: PrecomputeChild,
    *,
    owner: str,
    on_report: OnReport,
) -> None:
    """Renews the lease and forwards what the child tells, until its task is cancelled.

    Raises JobLost, JobCancelled.
    """
    while True:
        if await happens_within(child.changed, HEARTBEAT_SECONDS):
            child.changed.clear()
            metrics.job_progressed("precompute", child.report.progress)
            on_report(child.report)
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
                    peak_rss_mb=tree_mb(child.report),
                )
            )
        except DatabaseUnavailable as error:
            # No other worker can take the job meanwhile: they need the database too.
            log.warning("job.heartbeat_failed", job_id=job_id, reason=error.message)
        await asyncio.sleep(TELL_SECONDS)
