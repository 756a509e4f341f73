"""The one clock of the job table: the database's.

Leases, beats and cron slots are compared between machines, whose own clocks may differ by more
than a lease lasts. On SQLite all processes share a machine, so its clock is the machine's.
"""

from datetime import UTC, datetime

from sqlalchemy import Connection, func, select


def database_time(connection: Connection) -> datetime:
    """The database's time now, in UTC; within a transaction it goes on."""
    if connection.dialect.name == "sqlite":
        text: str = connection.execute(
            select(func.strftime("%Y-%m-%dT%H:%M:%f", "now"))
        ).scalar_one()
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    instant: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return instant.astimezone(UTC)
