"""What routes need beyond the request: the process's resources and the caller.

`Resources` is made once by `create_app` and stands on `app.state.resources`. Engine and queue are
opened when a route first needs them: a process that only serves snapshots never loads their
packages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from api.answers import header_map
from api.auth import Authenticator, Principal, Role, require_role
from api.cursors import PageCursors
from api.database import left_behind_ended
from api.follower import SnapshotFollower
from api.inspection import Inspection
from api.lifecycle import Lifecycle
from api.order_writer import OrderWriter
from api.overlay import Overlay
from api.overlay_follower import OverlayFollower
from api.waking import RefreshWake
from api.worker_count import WorkerCount
from shared.jobs.queue import JobQueue
from shared.settings import Settings
from shared.snapshot.opening import open_overlay
from shared.snapshot.store import SnapshotCatalog

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

CLOSE_SECONDS = 3.0  # for what was left behind of the database


class Resources:
    """`store` is synchronous and slow: call it in a thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: SnapshotCatalog,
        lifecycle: Lifecycle,
    ) -> None:
        self.settings = settings
        self.store = store
        self.lifecycle = lifecycle
        self.authenticator = Authenticator(settings)
        self.page_cursors = PageCursors(settings)
        self.overlay = Overlay(settings.overlay_dir)
        self.overlay_follower = OverlayFollower(settings, self.overlay, open_overlay(settings))
        self.snapshots = SnapshotFollower(settings, store, self.overlay_follower)
        self.inspection = Inspection(settings, store, self.snapshots)
        self.order_writer = OrderWriter(self.open_engine)
        self.refresh_wake = RefreshWake(self.open_queue)
        self._opening = asyncio.Lock()
        self._reading_engine: AsyncEngine | None = None

    def open_local(self) -> None:
        """Makes the process serve what is on its disk. Slow: call it in a thread."""
        self.overlay.open()
        self.snapshots.open_local()

    @cached_property
    def _engine(self) -> AsyncEngine:
        from shared.db.engine import async_engine
        from shared.metrics import watch_pool

        engine = async_engine(self.settings)
        watch_pool(engine.sync_engine.pool)
        return engine

    async def open_engine(self) -> AsyncEngine:
        """The engine; the first call loads its packages in a thread, so that others are served.

        Before anything is imported that needs SQLAlchemy, or that import stops the event loop.
        """
        if "_engine" not in self.__dict__:
            async with self._opening:
                await asyncio.to_thread(lambda: self._engine)
        return self._engine

    async def open_reading_engine(self) -> AsyncEngine:
        """For statements that only read and need not see one state: each is by itself.

        On PostgreSQL that saves the round trips that begin and end a transaction.
        """
        engine = await self.open_engine()
        if engine.dialect.name == "sqlite":
            return engine
        if self._reading_engine is None:
            self._reading_engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        return self._reading_engine

    @cached_property
    def worker_count(self) -> WorkerCount:
        return WorkerCount(self.settings)

    @cached_property
    def _queue(self) -> JobQueue:
        from shared.jobs.opening import open_queue

        return open_queue(self.settings)

    async def open_queue(self) -> JobQueue:
        """The queue; the first call loads its packages in a thread."""
        if "_queue" not in self.__dict__:
            await asyncio.to_thread(lambda: self._queue)
        return self._queue

    async def close(self) -> None:
        await self.order_writer.close()
        await self.refresh_wake.close()
        if "_queue" in self.__dict__:
            await self._queue.close()
        if "_engine" in self.__dict__:
            await left_behind_ended(seconds=CLOSE_SECONDS)
            await self._engine.dispose()


async def resources_of(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


async def principal_of(request: Request) -> Principal:
    """Raises Unauthenticated."""
    resources: Resources = request.app.state.resources
    headers = header_map(request.scope["headers"])
    return resources.authenticator.principal(headers.get(b"authorization"))


def caller_with(*roles: Role) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency that lets only these roles pass. Raises Unauthenticated, Forbidden."""

    async def caller(request: Request) -> Principal:
        principal = await principal_of(request)
        require_role(principal, roles)
        return principal

    return caller


AppResources = Annotated[Resources, Depends(resources_of)]
Caller = Annotated[Principal, Depends(principal_of)]
Service = Annotated[Principal, Depends(caller_with("service"))]
Operator = Annotated[Principal, Depends(caller_with("service", "viewer"))]
