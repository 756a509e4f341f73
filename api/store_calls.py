"""The API's way to the snapshot store for operators: a thread, a deadline, few at a time.

Store calls are synchronous. One that is late is left behind to end by its own time-out, and the
request is answered; while too many are left behind, no further ones begin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from shared.errors import StoreUnavailable

READ_SECONDS = 5.0
CHANGE_SECONDS = 30.0  # an activation first verifies every byte of the version
MAX_CALLS = 3

T = TypeVar("T")

_running: set[asyncio.Future[Any]] = set()


async def call_store(work: Callable[[], T], *, deadline_seconds: float = READ_SECONDS) -> T:
    """Runs `work` in a thread.

    Raises StoreUnavailable, also when the deadline has passed (the outcome is then unknown), and
    what `work` raises.
    """
    if len(_running) >= MAX_CALLS:
        raise StoreUnavailable("the snapshot store is busy with earlier calls; try again soon")
    call = asyncio.ensure_future(asyncio.to_thread(work))
    _running.add(call)
    call.add_done_callback(_forget)
    done, _ = await asyncio.wait({call}, timeout=deadline_seconds)
    if not done:
        raise StoreUnavailable(f"the snapshot store did not answer within {deadline_seconds:g} s")
    return call.result()


def _forget(call: asyncio.Future[Any]) -> None:
    _running.discard(call)
    if not call.cancelled():
        call.exception()  # looked at, so that nothing is said about it at exit
