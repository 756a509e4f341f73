"""The leases of jobs whose worker is gone or stands still."""

from __future__ import annotations

from sqlalchemy import update

from shared.db.engine import sync_engine
from shared.db.models import JobRow
from shared.jobs.clock import database_time
from shared.settings import Settings


def leases_run_out(settings: Settings) -> None:
    """As after fifteen seconds without a word."""
    engine = sync_engine(settings)
    with engine.begin() as connection:
        past = database_time(connection).replace(year=2000)
        connection.execute(
            update(JobRow).where(JobRow.state == "running").values(lease_expires_at=past)
        )
    engine.dispose()
