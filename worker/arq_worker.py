"""The arq worker: woken through Redis, and alive without it.

By itself `arq.Worker` ends when Redis goes away, and leaves the job of a killed worker alone for
as long as a job may take. Here a loop builds it anew after an outage, its marks of jobs in
progress are short and renewed, and the running job goes on meanwhile: it belongs to this process,
arq only called for it. Beside it the look-around finds what no message told.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

from arq import Retry, Worker, func
from arq.constants import in_progress_key_prefix
from redis.exceptions import RedisError

from shared.jobs.arq_queue import (
    FUNCTION,
    MESSAGE_ID,
    QUEUE,
    REFRESH,
    NamespacedRedis,
    arq_redis,
    decode_message,
    encode_message,
)
from shared.logs import get_logger
from shared.settings import Settings
from worker.jobs import COMMAND, RUN_SECONDS
from worker.process import run_worker
from worker.refresher_child import RefresherChild
from worker.runner import JobRunner
from worker.waiting import happens_within

LOOK_SECONDS = 2.0
POLL_SECONDS = 0.2
ANSWER_SECONDS = 1.0
IN_PROGRESS_SECONDS = 15.0
RENEW_SECONDS = 4.0
HEALTH_SECONDS = 5.0
FIRST_WAIT_SECONDS = 0.2
MAX_WAIT_SECONDS = 5.0
CLOSE_SECONDS = 2.5
CANCEL_SECONDS = 1.0
MAX_MEMBERS = 1000
MAX_CALLS = 4
"""At a time: a wake-up gets through while one precompute runs here and another waits for it."""

log = get_logger("worker.arq_worker")


async def run_arq_worker(
    settings: Settings, *, command: Sequence[str] = COMMAND, look_seconds: float = LOOK_SECONDS
) -> None:
    """Works until SIGTERM or SIGINT. Raises DatabaseUnavailable, SchemaError at its start."""
    _route_arq_logs()
    await run_worker(
        settings,
        kind="arq",
        look_seconds=look_seconds,
        command=command,
        beside=partial(_serve_queue, settings),
    )


async def _serve_queue(
    settings: Settings, runner: JobRunner, refresher: RefresherChild, stop: asyncio.Event
) -> None:
    """One arq worker after the other, each until Redis fails it."""
    wait_seconds = FIRST_WAIT_SECONDS
    has_told = False
    while not stop.is_set():
        redis = arq_redis(settings, answer_seconds=ANSWER_SECONDS)
        worker = _worker(redis, runner, refresher, stop)
        error = await _until_failure(worker, redis, runner, stop)
        had_served = worker.ctx.get("redis") is not None
        if not stop.is_set():
            if had_served or not has_told:  # once an outage
                log.warning("queue.away", error=type(error).__name__)
                has_told = True
            if not isinstance(error, RedisError | OSError):
                await _remove_foreign_members(redis)
        await _close(worker, redis)
        wait_seconds = FIRST_WAIT_SECONDS if had_served else wait_seconds
        await happens_within(stop, wait_seconds * random.uniform(0.75, 1.25))
        wait_seconds = min(2 * wait_seconds, MAX_WAIT_SECONDS)


def _worker(
    redis: NamespacedRedis, runner: JobRunner, refresher: RefresherChild, stop: asyncio.Event
) -> Worker:
    async def precompute(ctx: dict[Any, Any], *arguments: Any, **_named: Any) -> None:
        (job_id,) = arguments  # `decode_message` lets nothing else through
        await runner.run(job_id)
        if stop.is_set():
            raise Retry  # the message stays, for another worker

    async def refresh_users(ctx: dict[Any, Any]) -> None:
        refresher.wake()

    async def tell(ctx: dict[Any, Any]) -> None:
        log.info("queue.connected")

    worker = Worker(
        functions=[
            func(precompute, name=FUNCTION, timeout=2 * RUN_SECONDS),
            func(refresh_users, name=REFRESH, timeout=ANSWER_SECONDS),
        ],
        queue_name=QUEUE,
        redis_pool=redis,
        on_startup=tell,
        handle_signals=False,
        max_jobs=MAX_CALLS,
        keep_result=0,
        poll_delay=POLL_SECONDS,
        health_check_interval=HEALTH_SECONDS,
        job_serializer=encode_message,
        job_deserializer=decode_message,
        log_results=False,
    )
    worker.in_progress_timeout_s = IN_PROGRESS_SECONDS  # arq: the longest timeout and ten seconds
    return worker


async def _until_failure(
    worker: Worker, redis: NamespacedRedis, runner: JobRunner, stop: asyncio.Event
) -> BaseException | None:
    """Serves until Redis fails or `stop` is set and the running job has been given back."""
    serving = asyncio.create_task(worker.async_run())
    renewing = asyncio.create_task(_renew(worker, redis))
    stopping = asyncio.create_task(stop.wait())
    tasks = (serving, renewing, stopping)
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    worker.allow_pick_jobs = False
    if stop.is_set():
        await runner.idle()
        if worker.tasks:
            await asyncio.wait(worker.tasks.values(), timeout=CLOSE_SECONDS)
    pending: set[asyncio.Task[Any]] = set(tasks)
    while pending:
        # More than once: a cancellation that meets the end of a wait inside arq can be swallowed.
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_SECONDS)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return next((each for each in results if isinstance(each, Exception)), None)


async def _renew(worker: Worker, redis: NamespacedRedis) -> None:
    """Keeps the marks of what runs here; a worker that is killed loses them within seconds."""
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        for message_id in list(worker.job_tasks):
            key = in_progress_key_prefix + message_id
            await redis.pexpire(key, int(IN_PROGRESS_SECONDS * 1000))


async def _remove_foreign_members(redis: NamespacedRedis) -> None:
    """Takes out of the queue what arq cannot even read as a name."""
    try:
        members = await redis.zrange(QUEUE, 0, MAX_MEMBERS)
        foreign = [member for member in members if not MESSAGE_ID.fullmatch(member)]
        if foreign:
            await redis.zrem(QUEUE, *foreign)
            log.warning("queue.foreign_removed", count=len(foreign))
    except (RedisError, OSError):
        return  # Redis is away as well; the next round meets them again


async def _close(worker: Worker, redis: NamespacedRedis) -> None:
    """Ends what arq has running, within CLOSE_SECONDS also while Redis is away.

    Not by arq's own `close`: it raises, and leaves behind what it waited for, when Redis is away.
    """
    for task in worker.tasks.values():
        task.cancel()  # once: each then takes its leave of Redis, which ends by itself
    leaving = [*worker.tasks.values(), asyncio.create_task(_sign_off(worker, redis))]
    done, _ = await asyncio.wait(leaving, timeout=CLOSE_SECONDS)
    await asyncio.gather(*done, return_exceptions=True)
    with contextlib.suppress(RedisError, OSError):
        await redis.aclose(close_connection_pool=True)


async def _sign_off(worker: Worker, redis: NamespacedRedis) -> None:
    with contextlib.suppress(RedisError, OSError):
        await redis.delete(worker.health_check_key)


class _ToOurLogs(logging.Handler):
    """arq's warnings as events of ours, without the text that came from Redis."""

    def emit(self, record: logging.LogRecord) -> None:
        log.warning("arq.warning", text=str(record.msg), level_name=record.levelname)


def _route_arq_logs() -> None:
    logger = logging.getLogger("arq")
    logger.handlers = [_ToOurLogs()]
    logger.setLevel(logging.WARNING)
    logger.propagate = False
