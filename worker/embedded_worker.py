"""The worker without Redis: nobody wakes it, so it looks at the table twice a second."""

from collections.abc import Sequence

from shared.settings import Settings
from worker.jobs import COMMAND
from worker.process import run_worker

LOOK_SECONDS = 0.5


async def run_embedded_worker(settings: Settings, *, command: Sequence[str] = COMMAND) -> None:
    """Works until SIGTERM or SIGINT. Raises DatabaseUnavailable, SchemaError at its start."""
    await run_worker(settings, kind="embedded", look_seconds=LOOK_SECONDS, command=command)
