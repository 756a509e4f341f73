"""The queue without Redis: workers look for queued rows themselves, so there is nobody to wake."""

from shared.jobs.job import Job


class EmbeddedQueue:
    async def check(self) -> None:
        return None

    async def enqueue(self, job: Job) -> None:
        return None

    async def wake_refresh(self) -> None:
        return None

    async def close(self) -> None:
        return None
