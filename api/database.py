"""The API's way to the database: one transaction, with a deadline that holds.

Cancelling a query of a driver whose server hangs may itself hang until the driver's own time-out,
so a transaction that is late is left behind to end by itself, and the request is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from shared.db.engine import database_errors
from shared.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

DEADLINE_SECONDS = 2.5

T = TypeVar("T")

_left_behind: set[asyncio.Future[Any]] = set()


async def in_transaction(
    engine: AsyncEngine,
    work: Callable[[AsyncConnection], Awaitable[T]],
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> T:
    """Runs `work` in one transaction that commits at its end.

    Raises DatabaseUnavailable, also when the deadline has passed (the outcome is then unknown),
    SchemaError, and what `work` raises.
    """
    task = asyncio.ensure_future(_transaction(engine, work))
    try:
        done, _ = await asyncio.wait({task}, timeout=deadline_seconds)
    except asyncio.CancelledError:
        _leave_behind(task)
        raise
    if not done:
        _leave_behind(task)
        raise DatabaseUnavailable(f"the database did not answer within {deadline_seconds:g} s")
    return task.result()


async def _transaction(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    with database_errors():
        async with engine.begin() as connection:
            return await work(connection)


def _leave_behind(task: asyncio.Future[Any]) -> None:
    _left_behind.add(task)
    task.add_done_callback(_forget)
    task.cancel()


def _forget(task: asyncio.Future[Any]) -> None:
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, so that nothing is said about it at exit
