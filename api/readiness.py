"""Whether this process can serve, and what behind it does not answer.

Store and snapshot are known from the follower, without I/O. Database and workers are asked in one
statement, once a second at most however many ask, with a deadline that a hanging server cannot
move, and over a connection of its own, so that a pool whose connections are all in use is not taken
for a database that is down.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Literal

from api.database import by_deadline
from api.deps import Resources
from shared.errors import SchemaError, TasteMatchError
from shared.metrics import dependency_degraded

PROBE_SECONDS = 1.5
FRESH_SECONDS = 1.0

DatabaseState = Literal["ok", "down", "not-migrated"]
WorkerState = Literal["ok", "down", "unknown"]


@dataclass(frozen=True, slots=True)
class Probe:
    """What the database said. `worker` is unknown where the database could not tell."""

    database: DatabaseState
    worker: WorkerState
    probed_at: float


class Readiness:
    """Keeps the last probe, and lets everybody who asks meanwhile wait for the same one."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._last: Probe | None = None
        self._running: asyncio.Task[Probe] | None = None

    async def report(self) -> tuple[int, dict[str, Any]]:
        """The status (200, or 503 when no list can be served) and the document of `/ready`."""
        probe = await self._probe()
        followed = self._resources.snapshots.status()
        snapshot = self._resources.snapshots.active
        is_draining = self._resources.lifecycle.is_draining
        checks: dict[str, Any] = {
            "store": followed.store,
            "database": probe.database,
            "worker": probe.worker,
            "snapshot": {
                "version": None if snapshot is None else snapshot.version,
                "age_seconds": None if snapshot is None else snapshot.age_seconds(time.time()),
            },
        }
        if followed.problem is not None:
            checks["snapshot"]["problem"] = followed.problem
        for name in ("store", "database", "worker"):
            dependency_degraded(name, checks[name] not in ("ok", "unknown"))
        is_whole = (
            (followed.store, probe.database) == ("ok", "ok")
            and probe.worker != "down"
            and followed.problem is None
        )
        document: dict[str, Any] = {"status": "ready" if is_whole else "degraded", "checks": checks}
        if snapshot is None or is_draining:
            document["status"] = "unavailable"
            document["reason"] = (
                "draining" if is_draining else self._resources.snapshots.reason_for_nothing()
            )
            return 503, document
        return 200, document

    async def _probe(self) -> Probe:
        last = self._last
        if last is not None and time.monotonic() - last.probed_at < FRESH_SECONDS:
            return last
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(_ask(self._resources))
        self._last = await asyncio.shield(self._running)
        return self._last


async def _ask(resources: Resources) -> Probe:
    database: DatabaseState = "ok"
    worker: WorkerState = "unknown"
    try:
        seen = await by_deadline(resources.worker_count.ask(), PROBE_SECONDS)
        worker = "ok" if seen else "down"
    except SchemaError:
        database = "not-migrated"
    except TasteMatchError:
        database = "down"
    return Probe(database, worker, time.monotonic())
