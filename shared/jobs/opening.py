"""From the settings to a job queue. arq is imported only where there is a Redis."""

from shared.jobs.queue import JobQueue
from shared.settings import Settings


def open_queue(settings: Settings) -> JobQueue:
    """The queue to wake workers through. Connects to nothing yet; close it after use."""
    if settings.redis_url is None:
        from shared.jobs.embedded_queue import EmbeddedQueue

        return EmbeddedQueue()
    from shared.jobs.arq_queue import ArqQueue

    return ArqQueue(settings)
