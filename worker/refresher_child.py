"""The refresher seen from its worker: started when there are changes, woken, supervised, ended."""

import asyncio
import random
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence

import orjson

from shared import refresh_metrics
from shared.logs import get_logger
from worker.child import READ_BYTES, end_process, start_process
from worker.waiting import first_of, happens_within

COMMAND = (sys.executable, "-m", "worker.refresher")
FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 30.0
SILENT_SECONDS = 60.0
"""After which a process that says nothing is taken for stuck; it says that it lives every two."""
HEALTHY_SECONDS = 60.0
"""A refresher that ran for so long did not fail at its start."""

log = get_logger("worker.refresher")


class RefresherChild:
    """At most one process at a time. `run` is its whole life, the other calls only wake it."""

    def __init__(
        self, command: Sequence[str] = COMMAND, *, silent_seconds: float = SILENT_SECONDS
    ) -> None:
        self._command = command
        self._silent_seconds = silent_seconds
        self._heard = asyncio.Event()
        self._wanted = asyncio.Event()
        self._process: Process | None = None
        self._is_resting = False

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def wake(self) -> None:
        """There may be something to do: a running process looks at once, else one is started."""
        if self._process is None:
            self._wanted.set()
            return
        assert self._process.stdin is not None, "its stdin is a pipe"
        if self._process.returncode is None and not self._process.stdin.is_closing():
            self._process.stdin.write(b"\n")

    def rest(self) -> None:
        """Ends the process and starts none until `resume`: its memory is needed."""
        if not self._is_resting:
            self._is_resting = True
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()

    def resume(self) -> None:
        """After a rest, what came meanwhile is looked for."""
        if self._is_resting:
            self._is_resting = False
            self._wanted.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Starts the process whenever it is wanted, and ends it with `stop`."""
        wait_seconds = FIRST_WAIT_SECONDS
        while not stop.is_set():
            await first_of(stop, self._wanted)
            if stop.is_set():
                return
            self._wanted.clear()
            if self._is_resting:
                continue
            started = asyncio.get_running_loop().time()
            status = await self._run_once(stop)
            if status == 0 or stop.is_set() or self._is_resting:
                wait_seconds = FIRST_WAIT_SECONDS
                continue
            if asyncio.get_running_loop().time() - started > HEALTHY_SECONDS:
                wait_seconds = FIRST_WAIT_SECONDS
            log.warning("refresher.lost", exit_status=status, retry_in_s=wait_seconds)
            await happens_within(stop, wait_seconds * random.uniform(0.75, 1.25))
            wait_seconds = min(2 * wait_seconds, MAX_WAIT_SECONDS)
            self._wanted.set()

    async def _run_once(self, stop: asyncio.Event) -> int | None:
        """The exit status; None where no process could be started, or one was silent."""
        try:
            self._process = await start_process(self._command)
        except OSError as error:
            log.error("refresher.not_started", reason=error.strerror)
            return None
        listening = asyncio.create_task(self._listen(self._process))
        silent = asyncio.create_task(self._until_silent())
        tasks = (listening, silent, asyncio.create_task(stop.wait()))
        try:
            if not self._is_resting:  # which may have been said while it was being started
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await end_process(self._process)
            return None if silent.done() else self._process.returncode
        finally:
            self._process = None
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_silent(self) -> None:
        while await happens_within(self._heard, self._silent_seconds):
            self._heard.clear()
        log.error("refresher.silent", seconds=self._silent_seconds)

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None, "its stdout is a pipe"
        begun = b""
        while data := await process.stdout.read(READ_BYTES):
            self._heard.set()
            *lines, begun = (begun + data).split(b"\n")
            for line in lines:
                _hear(line)
            begun = begun[-READ_BYTES:]


def _hear(line: bytes) -> None:
    try:
        event = orjson.loads(line)
        if event["event"] == "refreshed":
            refresh_metrics.changes_published(
                users=int(event["users"]),
                restaurants=int(event["restaurants"]),
                seconds=float(event["seconds"]),
            )
    except (ValueError, KeyError, TypeError):
        log.warning("refresher.unreadable")
