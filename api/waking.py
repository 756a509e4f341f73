"""Waking the worker after commits: soon, seldom, and never at a request's expense.

Many changes within WAKE_SECONDS end in one wake-up, and one comes after the last of them. A queue
that does not answer costs nothing but freshness: the worker also looks for changes by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from shared.errors import QueueUnavailable
from shared.jobs.queue import JobQueue
from shared.logs import get_logger
from shared.metrics import wake_failed

WAKE_SECONDS: Final = 0.1

log = get_logger("api.waking")


class RefreshWake:
    """`open_queue` is called at the first wake-up."""

    def __init__(self, open_queue: Callable[[], Awaitable[JobQueue]]) -> None:
        self._open_queue = open_queue
        self._is_wanted = False
        self._is_failing = False
        self._waking: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Called after a commit that noted a change; returns at once."""
        self._is_wanted = True
        if self._waking is None:
            self._waking = asyncio.create_task(self._wake_while_wanted())

    async def close(self) -> None:
        if self._waking is not None:
            self._waking.cancel()
            await asyncio.wait({self._waking})

    async def _wake_while_wanted(self) -> None:
        try:
            while self._is_wanted:
                self._is_wanted = False
                await self._wake_once()
                await asyncio.sleep(WAKE_SECONDS)
        finally:
            self._waking = None

    async def _wake_once(self) -> None:
        try:
            queue = await self._open_queue()
            await queue.wake_refresh()
        except QueueUnavailable as error:
            wake_failed()
            if not self._is_failing:
                log.warning("refresh.not_woken", reason=error.message)
            self._is_failing = True
        else:
            if self._is_failing:
                log.info("refresh.woken_again")
            self._is_failing = False
