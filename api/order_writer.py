"""Orders that wait are committed together: one transaction at a time, of all that came meanwhile.

A commit costs the same for one order and for a hundred, and one writer never waits for another of
its own process. A caller gets its answer after the commit that holds its order. What makes the
whole transaction fail, and is of one order alone, costs only that order: each is then written by
itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from api.database import DEADLINE_SECONDS, in_transaction
from shared.errors import DatabaseUnavailable, InvalidInput, RowLocked, TasteMatchError
from shared.logs import get_logger

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

    from shared.db.new_orders import NewOrder, Placed

MAX_TOGETHER: Final = 100
TRIES: Final = 3
# The pool has two more connections, for those who only read.
SINGLES_AT_ONCE: Final = 4
SINGLE_LOCK_SECONDS: Final = 0.25
PRUNE_SECONDS: Final = 600.0
MAX_SEEN: Final = 10_000
"""Users who ordered here and need not be added again, until one turns out to be erased."""

log = get_logger("api.orders")

_Waiting = tuple["NewOrder", "asyncio.Future[Placed]"]


class OrderWriter:
    """`open_engine` is called when the first order comes."""

    def __init__(self, open_engine: Callable[[], Awaitable[AsyncEngine]]) -> None:
        self._open_engine = open_engine
        self._waiting: deque[_Waiting] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._new_id: Callable[[], int] | None = None
        self._seen: set[int] = set()
        self._pruning: asyncio.Task[None] | None = None
        self._pruned_at = -PRUNE_SECONDS

    async def place(self, order: NewOrder) -> Placed:
        """Returns after the commit. Raises InvalidInput, DatabaseUnavailable, SchemaError."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Placed] = loop.create_future()
        self._waiting.append((order, future))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        late = loop.call_later(DEADLINE_SECONDS, self._fail_all, [(order, future)], _late())
        try:
            return await future
        finally:
            late.cancel()

    async def close(self) -> None:
        """Returns once nothing waits any more."""
        running = {task for task in (self._writing, self._pruning) if task is not None}
        if running:
            await asyncio.wait(running)

    async def _write_all(self) -> None:
        try:
            engine = await self._open_engine()
            while self._waiting:
                await self._write_some(engine)
            self._prune_sometimes(engine)
        except BaseException:
            self._fail_all(self._waiting, DatabaseUnavailable("the orders could not be written"))
            self._waiting.clear()
            raise
        finally:
            self._writing = None

    async def _write_some(self, engine: AsyncEngine) -> None:
        together: list[_Waiting] = []
        while self._waiting and len(together) < MAX_TOGETHER:
            waiting = self._waiting.popleft()
            if not waiting[1].done():  # else it was too late, or its client has gone
                together.append(waiting)
        if not together:
            return
        try:
            await self._write_together(engine, together)
        except DatabaseUnavailable as error:
            # Who came meanwhile has waited as long as anybody should.
            self._fail_all([*together, *self._waiting], error)
            self._waiting.clear()
        except BaseException as error:
            is_deliberate = isinstance(error, TasteMatchError)
            unknown = DatabaseUnavailable("the orders could not be written")
            self._fail_all(together, error if is_deliberate else unknown)
            if not is_deliberate:
                raise

    async def _write_together(self, engine: AsyncEngine, together: Sequence[_Waiting]) -> None:
        try:
            await self._write(engine, together)
        except Exception as error:
            is_of_one_order = isinstance(error, RowLocked) or _is_refused_row(error)
            if not is_of_one_order:
                raise
            log.info("orders.written_singly", orders=len(together), reason=type(error).__name__)
            room = asyncio.Semaphore(SINGLES_AT_ONCE)
            await asyncio.gather(*(self._write_alone(engine, each, room) for each in together))

    async def _write_alone(
        self, engine: AsyncEngine, waiting: _Waiting, room: asyncio.Semaphore
    ) -> None:
        async with room:
            for tries_left in reversed(range(TRIES)):
                try:
                    await self._write(engine, [waiting], lock_seconds=SINGLE_LOCK_SECONDS)
                    return
                except Exception as error:
                    if not (_is_refused_row(error) and tries_left):
                        self._fail_all([waiting], error)
                        return

    async def _write(
        self,
        engine: AsyncEngine,
        together: Sequence[_Waiting],
        *,
        lock_seconds: float | None = None,
    ) -> None:
        from shared.db.locks import wait_for_locks
        from shared.db.new_orders import place_orders

        new_id = self._ids()
        orders = [order for order, _ in together]
        # One that is written alone may be so because its user is no longer there.
        seen: Container[int] = self._seen if lock_seconds is None else ()

        def place(connection: Connection) -> list[Placed | InvalidInput]:
            if lock_seconds is not None:
                wait_for_locks(connection, lock_seconds)
            return place_orders(
                connection, orders, new_id=new_id, now=datetime.now(UTC), seen_users=seen
            )

        outcomes = await in_transaction(engine, lambda connection: connection.run_sync(place))
        self._see(order.user_id for order in orders)
        for (_, future), outcome in zip(together, outcomes, strict=True):
            if future.done():
                continue  # its client has gone; the order stands
            if isinstance(outcome, InvalidInput):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _see(self, users: Iterable[int]) -> None:
        if len(self._seen) > MAX_SEEN:
            self._seen.clear()
        self._seen.update(users)

    def _prune_sometimes(self, engine: AsyncEngine) -> None:
        now = time.monotonic()
        if now - self._pruned_at >= PRUNE_SECONDS and self._pruning is None:
            self._pruned_at = now
            self._pruning = asyncio.create_task(self._prune(engine))

    async def _prune(self, engine: AsyncEngine) -> None:
        from shared.db.new_orders import PRUNED_AT_ONCE, forget_keys

        statement = forget_keys(now=datetime.now(UTC))
        try:
            removed = PRUNED_AT_ONCE
            while removed == PRUNED_AT_ONCE:
                result = await in_transaction(engine, lambda each: each.execute(statement))
                removed = result.rowcount
        except Exception as error:
            log.warning("orders.keys_not_pruned", reason=type(error).__name__)
        finally:
            self._pruning = None

    def _ids(self) -> Callable[[], int]:
        if self._new_id is None:
            from shared.db.order_ids import OrderIds

            self._new_id = OrderIds(time.time).next
        return self._new_id

    @staticmethod
    def _fail_all(waiting: Sequence[_Waiting] | deque[_Waiting], error: BaseException) -> None:
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)


def _late() -> DatabaseUnavailable:
    return DatabaseUnavailable(f"the database did not answer within {DEADLINE_SECONDS:g} s")


def _is_refused_row(error: BaseException) -> bool:
    """Whether a key, reference or deadlock refused it: it may pass when tried again."""
    from sqlalchemy.exc import DBAPIError

    return isinstance(error, DBAPIError)
