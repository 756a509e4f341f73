"""Blocking calls off the event loop: one thread, one call after another.

The threads are daemons. A database that is frozen holds its caller for as long as it likes, but
neither the loop, which goes on after a timeout, nor the end of the process.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from shared.db.engine import database_errors
from shared.errors import DatabaseUnavailable

ANSWER_SECONDS = 10.0

T = TypeVar("T")


class SerialThread:
    """Runs calls one at a time, in the order in which they come."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, call: Callable[[], T], *, timeout_seconds: float) -> T:
        """Returns or raises what `call` does.

        Raises TimeoutError when it takes longer: a call that waits its turn is then dropped, one
        that runs goes on, unheard.
        """
        future: Future[T] = Future()
        self._calls.put((call, future))
        async with asyncio.timeout(timeout_seconds):
            return await asyncio.wrap_future(future)

    def close(self) -> None:
        """The thread ends after what it was given."""
        self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            call, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # handed over whole to the one who waits
                future.set_exception(error)


class Transactions:
    """The worker's transactions: over one connection, one at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = SerialThread("database")

    async def run(
        self, work: Callable[[Connection], T], *, timeout_seconds: float = ANSWER_SECONDS
    ) -> T:
        """Returns or raises what `work` does, in a transaction that is committed or rolled back.

        Raises DatabaseUnavailable, SchemaError.
        """

        def transaction() -> T:
            with database_errors(), self._engine.begin() as connection:
                return work(connection)

        try:
            return await self._thread.run(transaction, timeout_seconds=timeout_seconds)
        except TimeoutError:
            raise DatabaseUnavailable("the database does not answer (timeout)") from None

    async def close(self, *, timeout_seconds: float) -> None:
        """Closes the connection, unless a call still hangs on it."""
        try:
            await self._thread.run(self._engine.dispose, timeout_seconds=timeout_seconds)
        except TimeoutError:
            return
        self._thread.close()
