"""The seam to the queue: only a wake-up call. What is to be done stands in the database.

A wake-up that is lost costs seconds, not the job: workers also look for queued rows themselves.
`arq_queue.py` calls through Redis, `embedded_queue.py` leaves it to that look.
"""

from typing import Protocol

from shared.jobs.job import Job


class JobQueue(Protocol):
    async def check(self) -> None:
        """Raises QueueUnavailable, within about a second, when the queue does not answer."""

    async def enqueue(self, job: Job) -> None:
        """Wakes a worker for a job that is committed. Calling it twice does no harm.

        Raises QueueUnavailable.
        """

    async def wake_refresh(self) -> None:
        """Wakes a worker for changes that are committed; many calls may end in one wake-up.

        Raises QueueUnavailable. Whoever calls it, calls it seldom (`api/waking.py`).
        """

    async def close(self) -> None: ...
