"""What a run asks about its job: whether it is still its own, and whether an earlier try of it has
published already.

A worker that stalls may lose its job and wake at any moment. Its run publishes nothing late: a run
that takes over first sweeps what unfinished publishes left in the store, so that none of them can
complete any more, then looks for what was published before. A job publishes one version at most.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from shared.db.engine import database_errors, sync_engine
from shared.jobs import records
from shared.settings import Settings
from shared.snapshot.opening import open_store
from shared.snapshot.store import CatalogEntry


@dataclass(frozen=True, slots=True)
class Ownership:
    """Of the job that a run belongs to. A run without a job is always its own."""

    settings: Settings
    job_id: str | None
    owner: str | None

    def begin(self) -> CatalogEntry | None:
        """Before the first row is read. Returns what an earlier try of the job has published.

        Raises JobLost, JobCancelled, DatabaseUnavailable, StoreUnavailable.
        """
        if self.job_id is None or self.owner is None:
            return None
        self.check()
        store = open_store(self.settings)
        try:
            store.sweep()
            for entry in store.versions():
                if entry.manifest.job_id == self.job_id:
                    return entry
        finally:
            store.close()
        self._ask(partial(records.begin, job_id=self.job_id, owner=self.owner))
        return None

    def check(self) -> None:
        """Raises JobLost, JobCancelled, DatabaseUnavailable."""
        if self.job_id is None or self.owner is None:
            return
        self._ask(partial(records.check_owner, job_id=self.job_id, owner=self.owner))

    def _ask(self, question: Callable[[Connection], None]) -> None:
        engine = sync_engine(self.settings)
        try:
            with database_errors(), engine.begin() as connection:
                question(connection)
        finally:
            engine.dispose()
