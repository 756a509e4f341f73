"""The worker process: its start, what runs beside what, its orderly stop.

SIGTERM and SIGINT end it within STOP_SECONDS and a few more: the running job's child is ended and
the job given back. Neither a database nor a Redis that goes away ends it.
"""

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from shared.startup import loaded
from shared.db.engine import sync_engine
from shared.db.schema import check_schema
from shared.errors import DatabaseUnavailable
from shared.jobs import workers
from shared.jobs.job import Job
from shared.jobs.workers import Worker, WorkerKind
from shared.logs import get_logger
from shared.settings import Settings
from worker.jobs import COMMAND, run_precompute
from worker.lookout import Lookout
from worker.memory import REFRESHER_MB
from worker.refresher_child import RefresherChild
from worker.runner import JobRunner
from worker.threads import Transactions
from worker.waiting import happens_within

START_SECONDS = 60.0
FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 5.0
STOP_SECONDS = 7.0
LAST_WORD_SECONDS = 1.0

log = get_logger("worker.process")

Beside = Callable[[JobRunner, RefresherChild, asyncio.Event], Coroutine[Any, Any, None]]


async def run_worker(
    settings: Settings,
    *,
    kind: WorkerKind,
    look_seconds: float,
    command: Sequence[str] = COMMAND,
    beside: Beside | None = None,
    start_seconds: float = START_SECONDS,
) -> None:
    """Works until a signal comes; `beside` runs along and ends when its event is set.

    Raises DatabaseUnavailable where the database does not answer for `start_seconds`, SchemaError
    where its tables are not those of this release.
    """
    loaded()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    transactions = Transactions(
        sync_engine(settings, statement_timeout_seconds=settings.db_statement_timeout)
    )
    try:
        await _wait_for_database(transactions, stop, start_seconds=start_seconds)
        if not stop.is_set():
            await _work(
                settings,
                transactions,
                stop,
                worker=_this_process(kind),
                look_seconds=look_seconds,
                command=command,
                beside=beside,
            )
    finally:
        await transactions.close(timeout_seconds=LAST_WORD_SECONDS)
    log.info("worker.stopped")


async def _work(
    settings: Settings,
    transactions: Transactions,
    stop: asyncio.Event,
    *,
    worker: Worker,
    look_seconds: float,
    command: Sequence[str],
    beside: Beside | None,
) -> None:
    refresher = RefresherChild()

    async def run(job_id: str) -> Job | None:
        try:
            return await run_precompute(
                transactions,
                job_id,
                owner=worker.id,
                stop=stop,
                command=[*command, "--reserve-mb", str(REFRESHER_MB)],
                on_report=lambda report: refresher.rest() if report.is_alone else None,
            )
        finally:
            refresher.resume()

    runner = JobRunner(run)
    lookout = Lookout(settings, transactions, runner, refresher, worker=worker)
    log.info("worker.started", worker_id=worker.id, kind=worker.kind, cron=settings.precompute_cron)
    loops = [
        lookout.run(stop, seconds=look_seconds),
        lookout.watch_store(stop),
        refresher.run(stop),
    ]
    if beside is not None:
        loops.append(beside(runner, refresher, stop))
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        stop.set()
        log.info("worker.stopping")
        await asyncio.wait([asyncio.create_task(runner.idle()), *tasks], timeout=STOP_SECONDS)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await _forget(transactions, worker)
    for result in results:
        if isinstance(result, Exception):  # a fault of ours: seen, not lived with
            raise result


async def _wait_for_database(
    transactions: Transactions, stop: asyncio.Event, *, start_seconds: float
) -> None:
    """A database may start later than its workers."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + start_seconds
    wait_seconds = FIRST_WAIT_SECONDS
    while True:
        try:
            await transactions.run(check_schema)
            return
        except DatabaseUnavailable as error:
            if loop.time() + wait_seconds > deadline:
                raise
            log.warning("worker.waits", reason=error.message, retry_in_s=wait_seconds)
        if await happens_within(stop, wait_seconds):
            return
        wait_seconds = min(2 * wait_seconds, MAX_WAIT_SECONDS)


async def _forget(transactions: Transactions, worker: Worker) -> None:
    try:
        await transactions.run(
            lambda connection: workers.forget(connection, worker),
            timeout_seconds=LAST_WORD_SECONDS,
        )
    except DatabaseUnavailable as error:
        log.warning("worker.not_signed_off", reason=error.message)


def _this_process(kind: WorkerKind) -> Worker:
    return Worker(id=uuid.uuid4().hex, kind=kind, host=socket.gethostname(), pid=os.getpid())
