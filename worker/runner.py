"""One job at a time in this process, whoever asks for it: the queue or the look-around."""

import asyncio
from collections.abc import Awaitable, Callable

from shared.errors import DatabaseUnavailable
from shared.jobs.job import Job
from shared.logs import get_logger

log = get_logger("worker.runner")


class JobRunner:
    """Runs one job at a time, whoever asks for it."""

    def __init__(self, run: Callable[[str], Awaitable[Job | None]]) -> None:
        self.ended = asyncio.Event()  # set after every job; whoever waits for it clears it
        self._run = run
        self._job_id: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        return self._task is not None

    def begin(self, job_id: str) -> None:
        """Starts the job, unless one runs."""
        if self._task is None:
            self._job_id = job_id
            self._task = asyncio.create_task(self._until_ended(job_id))

    async def run(self, job_id: str) -> None:
        """Runs the job after the one that runs, or joins it. Goes on when the caller is cancelled.

        Never raises: the job's row says how it went.
        """
        while self._task is not None and self._job_id != job_id:
            await asyncio.shield(self._task)
        self.begin(job_id)
        assert self._task is not None, "the job has begun"
        await asyncio.shield(self._task)

    async def idle(self) -> None:
        """Waits until no job runs."""
        while self._task is not None:
            await asyncio.shield(self._task)

    async def _until_ended(self, job_id: str) -> None:
        try:
            await self._run(job_id)
        except DatabaseUnavailable as error:
            log.warning("job.not_claimed", job_id=job_id, reason=error.message)
        except Exception:
            log.exception("job.not_run", job_id=job_id)
        finally:
            self._task = None
            self.ended.set()
