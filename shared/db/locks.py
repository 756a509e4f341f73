"""What a transaction does about other writers: how long it waits, and when it takes its turn."""

from typing import Any

from sqlalchemy import Connection, delete, false, text


def wait_for_locks(connection: Connection, seconds: float) -> None:
    """How long each statement of this transaction waits for others' rows, on PostgreSQL."""
    if connection.dialect.name != "sqlite":
        connection.execute(text(f"SET LOCAL lock_timeout = {int(seconds * 1000)}"))


def take_turn_on_sqlite(connection: Connection, table: Any) -> None:
    """A write before anything is read.

    A transaction that has read cannot write once another process has written: it would fail at once
    instead of waiting for its turn.
    """
    connection.execute(delete(table).where(false()))
