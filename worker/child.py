"""The process that computes: started for one run, listened to, ended.

It speaks JSON lines on stdout (`worker/precompute.py`), logs to this process's stderr, and ends
when its stdin is closed, so that it never outlives the worker, even one that is killed.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from shared.logs import get_logger
from worker.parent import child_environment

READ_BYTES = 64 * 1024
LINE_BYTES = 1024 * 1024  # a manifest is at most 256 KiB
END_SECONDS = 2.0
MAX_REASON_LENGTH = 500
MAX_STAGES = 64
MAX_STAGE_NAME = 32

_TOO_LONG = {
    "event": "error",
    "error": "the precompute process said more than it may",
    "kind": "ValueError",
}

log = get_logger("worker.child")


@dataclass(slots=True)
class Report:
    """What the child said last. `stages` are those that ended; `rss_mb` is its peak so far;
    `published` the version that it has made visible, whatever comes afterwards."""

    stage: str | None = None
    progress: float = 0.0
    stages: list[dict[str, Any]] = field(default_factory=list)
    rss_mb: float = 0.0
    published: str | None = None
    is_alone: bool = False
    """It needs the whole budget: nothing else may run beside it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the child ended. `manifest` after success; `error` and its class name after a failure.

    Neither when it broke off; `signal_number` when a signal ended it.
    """

    manifest: dict[str, Any] | None
    error: str | None
    error_kind: str | None
    exit_status: int
    signal_number: int | None


class PrecomputeChild:
    """One run. `changed` is set whenever `report` has news."""

    def __init__(self, process: Process) -> None:
        self.report = Report()
        self.changed = asyncio.Event()
        self._process = process
        self._last: dict[str, Any] = {}
        # Read to the very end, whatever happens: an unread pipe would keep the process from it.
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, command: Sequence[str]) -> Self:
        """Raises OSError where the system refuses another process."""
        return cls(await start_process(command))

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ending(self) -> Ending:
        """Waits until the child has ended."""
        while not self._listening.done():
            await asyncio.wait([self._listening], timeout=END_SECONDS)
            if self._process.returncode is not None and not self._listening.done():
                _kill(self._process)  # what it started itself holds its stdout open
        status = await self._process.wait()
        is_done = self._last.get("event") == "done"
        is_error = self._last.get("event") == "error"
        return Ending(
            manifest=dict(self._last["manifest"]) if is_done else None,
            error=one_line(self._last.get("error")) if is_error else None,
            error_kind=str(self._last.get("kind")) if is_error else None,
            exit_status=status,
            signal_number=-status if status < 0 else None,
        )

    async def end(self) -> None:
        """Ends the child, by its stdin or else by SIGKILL. Returns when it is gone."""
        if self._process.returncode is not None:
            return
        await end_process(self._process)
        await asyncio.wait([self._listening], timeout=END_SECONDS)

    async def _listen(self) -> None:
        assert self._process.stdout is not None, "its stdout is a pipe"
        begun = b""
        is_heard = True
        while data := await self._process.stdout.read(READ_BYTES):
            if not is_heard:
                continue
            *lines, begun = (begun + data).split(b"\n")
            for line in lines:
                self._hear(line)
            if len(begun) > LINE_BYTES:
                is_heard = False
                self._last = _TOO_LONG
                _kill(self._process)

    def _hear(self, line: bytes) -> None:
        try:
            event = orjson.loads(line)
            if event["event"] == "progress":
                self._progress(event)
            elif event["event"] == "alone":
                self.report.is_alone = True
                self.changed.set()
            elif event["event"] == "published":
                self.report.published = str(event["version"])
            elif event["event"] == "error" or (
                event["event"] == "done" and isinstance(event["manifest"], dict)
            ):
                self._last = event
        except (ValueError, KeyError, TypeError):
            log.warning("precompute.unreadable")

    def _progress(self, event: dict[str, Any]) -> None:
        report = self.report
        report.stage = str(event["stage"])[:MAX_STAGE_NAME]
        report.progress = min(max(float(event["progress"]), 0.0), 1.0)
        report.stages = [
            {"name": str(stage["name"])[:MAX_STAGE_NAME], "seconds": float(stage["seconds"])}
            for stage in event["stages"][:MAX_STAGES]
        ]
        report.rss_mb = max(report.rss_mb, float(event["rss_mb"]))
        self.changed.set()


def one_line(reason: object) -> str:
    """A reason as a job shows it: one line, of bounded length."""
    return " ".join(str(reason).split())[:MAX_REASON_LENGTH]


async def start_process(command: Sequence[str]) -> Process:
    """With pipes to its stdin and from its stdout. Raises OSError where the system refuses it."""
    # A session of its own: Ctrl-C reaches the worker alone, which then ends it in order.
    return await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, start_new_session=True, env=child_environment()
    )


async def end_process(process: Process) -> None:
    """Ends a started process, by its stdin or else by SIGKILL. Returns when it is gone."""
    if process.returncode is not None:
        return
    assert process.stdin is not None, "its stdin is a pipe"
    process.stdin.close()
    try:
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    except TimeoutError:
        _kill(process)
        await process.wait()


def _kill(process: Process) -> None:
    """Kills its group: what the process started itself goes with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
