"""`tastematch serve`, and the worker that may run beside it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable

import click

from shared.logs import configure_logs, get_logger
from shared.settings import load_settings

WORKER_STOP_SECONDS = 8.0
RESTART_SECONDS = 1.0
MAX_RESTART_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


@click.command("serve", epilog="Example: PORT=8080 tastematch serve --host ::")
@click.option("--host", help="Address to listen on; default TASTEMATCH_HOST. `::` is every one.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on; default PORT.")
@click.option("--with-worker", is_flag=True, help="Run the worker beside the API, as one program.")
def command(host: str | None, port: int | None, with_worker: bool) -> None:
    """Runs the API with uvicorn until SIGINT or SIGTERM."""
    settings = load_settings()
    configure_logs(service="api", level=settings.log_level)
    from api import server

    server.run(
        settings,
        host=host or settings.host,
        port=port or settings.port,
        companion=_worker_beside() if with_worker else None,
    )


def _worker_beside() -> Callable[[], Awaitable[None]]:
    bind_to_parent = _death_signal()

    async def run() -> None:
        """Starts the worker, again whenever it ends by itself; ends it when cancelled."""
        log = get_logger(__name__)
        pause = RESTART_SECONDS
        while True:
            # A session of its own: Ctrl-C reaches this process, which then ends the worker.
            worker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tastematch", "worker", "--no-metrics"),
                start_new_session=True,
                preexec_fn=bind_to_parent,
            )
            loop = asyncio.get_running_loop()
            started = loop.time()
            try:
                status = await worker.wait()
            except asyncio.CancelledError:
                await _stop(worker)
                raise
            if loop.time() - started > MAX_RESTART_SECONDS:
                pause = RESTART_SECONDS
            log.warning("worker.ended", status=status, restart_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_RESTART_SECONDS)

    return run


async def _stop(worker: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(WORKER_STOP_SECONDS):
                await worker.wait()
        except TimeoutError:
            worker.kill()
            await worker.wait()


def _death_signal() -> Callable[[], None] | None:
    """What makes a child end with this process, even where that is killed: Linux can do it."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
