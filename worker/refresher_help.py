"""When lists cannot be refreshed here: said once, and after a while helped by a precompute.

It makes a new log, and the model of a new version on this machine. Where a worker recomputes only
when it is told to, nothing is asked for.
"""

import time

from sqlalchemy import Engine

from shared.db import changes
from shared.db.engine import database_errors
from shared.jobs import records
from shared.jobs.clock import database_time
from shared.logs import get_logger
from shared.settings import Settings

AFTER_SECONDS = 60.0
"""Without the model, which another worker may have."""
EVERY_SECONDS = 900.0

log = get_logger("worker.refresher")


class Help:
    """One worker's."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._asked_at = float("-inf")
        self.forget()

    def forget(self) -> None:
        """Another version is active."""
        self._lacking_since: float | None = None
        self._has_warned = False

    def look(self, version: str, *, is_full: bool) -> None:
        """Called as long as lists cannot be refreshed; is_full: the log is, else a model lacks.

        Raises DatabaseUnavailable.
        """
        with database_errors(), self._engine.connect() as connection:
            if not connection.scalar(changes.has_open_changes()):
                self._lacking_since = None
                return
        now = time.monotonic()
        self._lacking_since = self._lacking_since or now
        if not is_full and now - self._lacking_since < AFTER_SECONDS:
            return
        if not self._has_warned:
            reason = "their log is full" if is_full else "the model is not kept here"
            log.warning("lists.not_refreshed", version=version, reason=reason)
            self._has_warned = True
        if self._settings.precompute_cron and now - self._asked_at > EVERY_SECONDS:
            with database_errors(), self._engine.begin() as connection:
                records.trigger(
                    connection,
                    kind="precompute",
                    origin="overlay",
                    now=database_time(connection),
                    wants_rerun=False,
                )
            self._asked_at = now
