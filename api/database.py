"""The API's way to the database: one transaction, with a deadline that holds.

Cancelling a query of a driver whose server hangs may itself hang until the driver's own time-out,
so a transaction that is late is left behind to end by itself, and the request is answered. SQLite
runs a statement in a thread, where cancelling does not reach it: there it is interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from shared.errors import DatabaseUnavailable, RowLocked

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

DEADLINE_SECONDS = 2.5
TRIES = 3
INTERRUPT_SECONDS = 0.05

# Classes of SQLSTATE that say something of the server and nothing of the statement: connection,
# authorization, unknown database, lack of resources, intervention of an operator. While it
# connects, asyncpg raises them as they are; later they come wrapped as a plain driver error.
_UNAVAILABLE = ("08", "28", "3D", "53", "57")
_LOCK_NOT_AVAILABLE = "55P03"
_ROLLED_BACK = "40"  # a deadlock that another writer survived

T = TypeVar("T")

_left_behind: set[asyncio.Future[Any]] = set()
_connections: dict[asyncio.Future[Any], AsyncConnection] = {}


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
    return await by_deadline(_transaction(engine, work), deadline_seconds)


async def in_transaction_again(
    engine: AsyncEngine,
    work: Callable[[AsyncConnection], Awaitable[T]],
    *,
    refused: str,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> T:
    """As `in_transaction`, tried anew where a row that `work` refers to was erased meanwhile.

    refused: what the DatabaseUnavailable says that is raised after TRIES.
    """
    from sqlalchemy.exc import IntegrityError

    for _ in range(TRIES):
        try:
            return await in_transaction(engine, work, deadline_seconds=deadline_seconds)
        except IntegrityError:
            continue
    raise DatabaseUnavailable(refused)


async def by_deadline(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """What `work` returns. Raises DatabaseUnavailable once it is late, and what it raises."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        _leave_behind(task)
        raise
    if not done:
        _leave_behind(task)
        raise DatabaseUnavailable(f"the database did not answer within {seconds:g} s")
    return task.result()


async def left_behind_ended(*, seconds: float) -> None:
    """Returns once nothing that was left behind uses the database any more, or time is up."""
    if _left_behind:
        await asyncio.wait(set(_left_behind), timeout=seconds)


async def _transaction(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    # Here, so that a process that only serves snapshots never loads SQLAlchemy.
    from shared.db.engine import database_errors

    try:
        with database_errors():
            async with engine.begin() as connection, _known(connection):
                return await work(connection)
    except Exception as error:
        state = getattr(getattr(error, "orig", error), "sqlstate", None) or ""
        if state == _LOCK_NOT_AVAILABLE or state.startswith(_ROLLED_BACK):
            raise RowLocked("another writer holds what is to be changed") from None
        if state.startswith(_UNAVAILABLE):
            raise DatabaseUnavailable(f"the database refuses the work ({state})") from None
        raise


@contextlib.asynccontextmanager
async def _known(connection: AsyncConnection) -> AsyncIterator[None]:
    task = asyncio.current_task()
    assert task is not None
    _connections[task] = connection
    try:
        yield
    finally:
        del _connections[task]


def _leave_behind(task: asyncio.Future[Any]) -> None:
    _left_behind.add(task)
    task.add_done_callback(_forget)
    driver = _sqlite_driver(_connections[task]) if task in _connections else None
    if driver is not None:
        # Before the task learns of it: closing the connection would wait for the statement, and
        # being cancelled while it waits, at the process's end, makes it wait for ever.
        _interrupt(driver, task)
    task.cancel()


def _sqlite_driver(connection: AsyncConnection) -> Any:
    raw = connection.sync_connection
    is_open = raw is not None and not raw.closed and not raw.invalidated
    if raw is None or not is_open or connection.dialect.name != "sqlite":
        return None
    return raw.connection.driver_connection


def _interrupt(driver: Any, task: asyncio.Future[Any]) -> None:
    """Again and again until the task has ended: a statement may be about to begin only."""
    if task.done() or driver._connection is None:
        return
    import sqlite3  # here, for those who have another database

    with contextlib.suppress(sqlite3.ProgrammingError):  # it is closed just now
        driver._connection.interrupt()  # the driver's own method of that name is a coroutine
    asyncio.get_running_loop().call_later(INTERRUPT_SECONDS, _interrupt, driver, task)


def _forget(task: asyncio.Future[Any]) -> None:
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, so that nothing is said about it at exit
