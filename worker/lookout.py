"""What every worker does between jobs: looks for work that nobody woke it for.

The queue only wakes. The look finds queued rows whose wake-up was lost, leases of workers that are
gone, ticks of the schedule, changes that lists do not follow yet, and a store that has lost its
active snapshot or a part of it; it also shows that this worker is alive.
"""

import asyncio
import time
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from shared import metrics, refresh_metrics
from shared.db import changes
from shared.errors import DependencyError, SnapshotError
from shared.jobs import leases, records, slots, workers
from shared.jobs.clock import database_time
from shared.jobs.job import Job
from shared.jobs.workers import Worker
from shared.logs import get_logger
from shared.settings import Settings
from shared.snapshot.opening import open_store
from shared.snapshot.store import Pointer, SnapshotReader
from shared.snapshot.verification import verify_parts
from worker.refresher_child import RefresherChild
from worker.runner import JobRunner
from worker.schedule import HISTORY, Schedule, is_repair_due
from worker.threads import SerialThread, Transactions
from worker.waiting import first_of, happens_within

STORE_SECONDS = 2.0
STORE_ANSWER_SECONDS = 10.0
VERIFY_SECONDS = 300.0
"""Between two readings of all that the active version consists of."""
VERIFY_ANSWER_SECONDS = 120.0

log = get_logger("worker.lookout")


class Lookout:
    """Looks every `seconds`, and at once after a job."""

    def __init__(
        self,
        settings: Settings,
        transactions: Transactions,
        runner: JobRunner,
        refresher: RefresherChild,
        *,
        worker: Worker,
    ) -> None:
        self._settings = settings
        self._transactions = transactions
        self._runner = runner
        self._refresher = refresher
        self._worker = worker
        self._schedule: Schedule | None = None
        self._tick: datetime | None = None  # under way: served once its transaction is committed
        self._has_no_snapshot = False
        self._is_damaged = False
        self._verified_at = float("-inf")
        self._version: str | None = None
        self._has_changes = False
        self._beaten_at = float("-inf")
        self._is_failing = False

    async def run(self, stop: asyncio.Event, *, seconds: float) -> None:
        while not stop.is_set():
            await self._look_safely()
            await first_of(stop, self._runner.ended, seconds=seconds)
            self._runner.ended.clear()

    async def watch_store(self, stop: asyncio.Event) -> None:
        """Keeps in mind what the store's pointer says; a store away changes nothing."""
        thread = SerialThread("store")
        store = open_store(self._settings)
        while not stop.is_set():
            try:
                pointer = await thread.run(
                    partial(_pointer, store), timeout_seconds=STORE_ANSWER_SECONDS
                )
                self._has_no_snapshot = pointer.version is None
                if pointer.version != self._version:
                    self._is_damaged = False
                    if pointer.version is not None:
                        self._refresher.wake()  # its overlay may lack something
                self._version = pointer.version
                await self._verify(pointer, store, thread)
            except (DependencyError, TimeoutError) as error:
                log.debug("store.away", reason=str(error))
            except Exception:
                log.exception("store.watch_failed")
            await happens_within(stop, STORE_SECONDS)
        thread.close()
        store.close()

    async def _verify(self, pointer: Pointer, store: SnapshotReader, thread: SerialThread) -> None:
        """Now and then. A pinned version is the operator's: another run would not replace it."""
        if time.monotonic() - self._verified_at < VERIFY_SECONDS:
            return
        self._verified_at = time.monotonic()
        reason = await thread.run(
            partial(_damage, store, pointer.version), timeout_seconds=VERIFY_ANSWER_SECONDS
        )
        if reason is not None:
            log.error("store.damaged", version=pointer.version, reason=reason)
        self._is_damaged = reason is not None and not pointer.is_pinned

    async def look(self) -> None:
        """Looks once. Raises DatabaseUnavailable, SchemaError."""
        job = await self._transactions.run(self._looked)
        if self._schedule is not None and self._tick is not None:
            self._schedule.served(self._tick)
        metrics.worker_seen(time.time())
        if job is not None:
            self._runner.begin(job.id)
        if self._has_changes:
            self._refresher.wake()

    async def _look_safely(self) -> None:
        try:
            await self.look()
        except Exception as error:
            if not self._is_failing:  # once: it looks every second or so
                reason = error.message if isinstance(error, DependencyError) else None
                log.warning("worker.blind", reason=reason, exc_info=reason is None)
            self._is_failing = True
            return
        if self._is_failing:
            log.info("worker.sees_again")
        self._is_failing = False

    def _looked(self, connection: Connection) -> Job | None:
        now = database_time(connection)
        is_busy = self._runner.is_busy
        if time.monotonic() - self._beaten_at >= workers.BEAT_SECONDS:
            workers.beat(connection, self._worker, state="running" if is_busy else "idle", now=now)
            self._beaten_at = time.monotonic()
            count, oldest = connection.execute(changes.count_open_changes()).one()
            refresh_metrics.changes_open(count, oldest=oldest, now=now)
        # While it runs it looks by itself.
        is_untold = self._version is None  # without a snapshot there are no lists
        self._has_changes = not self._refresher.is_running and bool(
            connection.scalar(changes.has_open_changes(is_untold=is_untold))
        )
        spared = self._worker.id if is_busy else None
        for job in leases.release_expired(connection, now=now, spare_owner=spared):
            log.warning("job.released", job_id=job.id, state=job.state, tries=job.tries)
        self._follow_schedule(connection, now)
        return records.queued(connection, "precompute")

    def _follow_schedule(self, connection: Connection, now: datetime) -> None:
        expression = self._settings.precompute_cron
        if not expression:
            return
        if self._schedule is None:
            self._schedule = Schedule(expression, now=now)
        self._tick = self._schedule.due(now)
        if self._tick is not None:
            job = slots.trigger_slot(
                connection, kind="precompute", origin="cron", slot=self._tick, now=now
            )
            log.info("schedule.tick", tick=self._tick.isoformat(), job_id=job and job.id)
        if (self._has_no_snapshot or self._is_damaged) and is_repair_due(
            records.newest(connection, limit=HISTORY),
            now=now,
            interval_seconds=self._schedule.interval_seconds(now),
        ):
            triggered = records.trigger(
                connection, kind="precompute", origin="repair", now=now, wants_rerun=False
            )
            event = "store.empty" if self._has_no_snapshot else "store.damaged"
            log.warning(event, job_id=triggered.job.id)


def _pointer(store: SnapshotReader) -> Pointer:
    try:
        return store.pointer()
    except SnapshotError:
        return Pointer(None, 0, False)  # one that cannot be read leads nowhere


def _damage(store: SnapshotReader, version: str | None) -> str | None:
    """What is wrong with the version, or None. Raises StoreUnavailable."""
    if version is None:
        return None
    try:
        verify_parts(store, store.manifest(version))
    except SnapshotError as error:
        return error.message
    return None
