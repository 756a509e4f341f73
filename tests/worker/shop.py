"""One shop under test: its database, its queue, its worker processes, its journal of runs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from shared.db.engine import sync_engine
from shared.jobs import records
from shared.jobs.job import Job
from shared.jobs.opening import open_queue
from shared.jobs.records import Triggered
from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from shared.snapshot.store import State
from tastematch.dataset import open_dataset
from tastematch.importer import import_dataset
from tests.services.children import Child, wait_until
from tests.services.datasets import two_tastes_dataset

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("pretend_precompute.py")
START_SECONDS = 30.0
NEVER_SECONDS = 600.0  # between look-arounds: then only a message can wake the worker


@dataclass
class Shop:
    folder: Path
    database_url: str
    redis_url: str = ""
    cron: str = ""
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def env(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "TASTEMATCH_NAMESPACE": "shop",
            "TASTEMATCH_PRECOMPUTE_CRON": self.cron,
            "TASTEMATCH_DATA_DIR": str(self.folder / "data"),
        }

    @property
    def settings(self) -> Settings:
        return load_settings(self.env)

    @functools.cached_property
    def _watching(self) -> Engine:
        """Keeps its connection, since what waits for a job asks fifty times a second."""
        engine = sync_engine(self.settings)
        self.stack.callback(engine.dispose)
        return engine

    @contextlib.contextmanager
    def engine(self) -> Iterator[Engine]:
        engine = sync_engine(self.settings)
        try:
            yield engine
        finally:
            engine.dispose()

    # --- workers ------------------------------------------------------------------------------

    def start_worker(
        self,
        *words: str | Path,
        name: str = "worker",
        look: float = 0.5,
        start: float = 60,
        program: Path = PROGRAM,
    ) -> Child:
        """Starts a worker whose runs go as `words` say to the program."""
        child = Child(
            [
                *(sys.executable, "-m", "tests.worker.worker_process"),
                *("--look", str(look), "--start", str(start)),
                *(sys.executable, program, "--journal", self.journal_path, *words),
            ],
            name=name,
            folder=self.folder,
            environment={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "PYTHONPATH": str(REPOSITORY),
                **self.env,
            },
            working_folder=REPOSITORY,
        )
        self.stack.callback(child.stop)
        return child

    def started_worker(
        self,
        *words: str | Path,
        name: str = "worker",
        look: float = 0.5,
        program: Path = PROGRAM,
    ) -> Child:
        child = self.start_worker(*words, name=name, look=look, program=program)
        awaited = "queue.connected" if self.redis_url else "worker.started"
        wait_until(
            lambda: awaited in child.stderr() or not child.is_running,
            timeout_seconds=START_SECONDS,
            describe=child.log_tail,
        )
        assert child.is_running, child.log_tail()
        return child

    # --- jobs ---------------------------------------------------------------------------------

    def trigger(self, origin: str = "http") -> Triggered:
        """As the API does: the row is committed, then a worker is woken."""
        now = datetime.now(UTC)

        def work(connection: Connection) -> Triggered:
            return records.trigger(connection, kind="precompute", origin=origin, now=now)

        with self.engine() as engine, engine.begin() as connection:
            triggered = work(connection)
        asyncio.run(self._wake(triggered.job))
        return triggered

    def wake_refresh(self) -> None:
        """As the API does after a write."""

        async def wake() -> None:
            queue = open_queue(self.settings)
            await queue.wake_refresh()
            await queue.close()

        asyncio.run(wake())

    async def _wake(self, job: Job) -> None:
        queue = open_queue(self.settings)
        try:
            await queue.enqueue(job)
        finally:
            await queue.close()

    def read(self, job: Job) -> Job:
        with self._watching.connect() as connection:
            return records.get(connection, job.id)

    def jobs(self) -> list[Job]:
        with self._watching.connect() as connection:
            return list(records.newest(connection, limit=200))

    def until_state(self, job: Job, *states: str, seconds: float = 20) -> float:
        """Waits until the job is in one of the states. Returns the seconds that it took."""
        started = time.monotonic()
        wait_until(
            lambda: self.read(job).state in states,
            timeout_seconds=seconds,
            describe=lambda: f"{states}\n{self.read(job)}\n{self.logs()}",
        )
        return time.monotonic() - started

    def until_queued(self) -> None:
        wait_until(self.jobs, timeout_seconds=20, describe="a job in the table")

    def until_started(self, number: int = 1, *, seconds: float = 20) -> None:
        """Waits until that many runs have begun in all."""
        wait_until(
            lambda: len(self.journal("start")) >= number,
            timeout_seconds=seconds,
            describe=lambda: f"{number} runs\n{self.logs()}",
        )

    # --- real runs ----------------------------------------------------------------------------

    def fill(self) -> None:
        """Some users and orders, so that there is something to compute."""
        data = two_tastes_dataset(self.folder / "dataset", users_per_group=10)
        with self.engine() as engine:
            import_dataset(
                engine,
                open_dataset(data.folder, now=datetime(2027, 1, 1, tzinfo=UTC)),
                on_bad_row=lambda row: pytest.fail(str(row)),
                on_progress=lambda table: None,
            )

    def active_version(self) -> str | None:
        store = open_store(self.settings)
        try:
            return store.pointer().version
        finally:
            store.close()

    def versions(self) -> dict[str, tuple[State, str | None]]:
        """The state of each complete version, and the job that published it."""
        store = open_store(self.settings)
        try:
            return {
                entry.manifest.version: (entry.state, entry.manifest.job_id)
                for entry in store.versions()
            }
        finally:
            store.close()

    # --- what was run -------------------------------------------------------------------------

    @property
    def journal_path(self) -> Path:
        return self.folder / "journal"

    def journal(self, what: str) -> list[dict[str, Any]]:
        if not self.journal_path.exists():
            return []
        lines = [json.loads(line) for line in self.journal_path.read_text().splitlines()]
        return [line for line in lines if line["what"] == what]

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.err")
        )


def shop_on(request: pytest.FixtureRequest, folder: Path, stack: contextlib.ExitStack) -> Shop:
    """By the fixture's parameter: "embedded" on SQLite, "arq" on PostgreSQL and Redis."""
    if request.param == "arq":
        urls = (request.getfixturevalue("postgres_url"), request.getfixturevalue("redis_url"))
    else:
        urls = (request.getfixturevalue("sqlite_url"), "")
    return Shop(folder, *urls, stack=stack)
