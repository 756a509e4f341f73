"""Statements of the table of changes: what the overlay of a snapshot has to say.

A write notes its change in its own transaction, so that nothing confirmed is forgotten, whatever
happens to queue, store or worker. A subject has one row however often it changes: its revision
counts the changes, and the row's lock puts the writes of one subject in order. What is noted
before a snapshot began to read is contained in it (`Manifest.changes_since`).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Delete,
    Dialect,
    Select,
    Update,
    delete,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from shared.db.models import Change, UtcDateTime

Subject = Literal["user", "restaurant"]

LATE_COMMIT_SECONDS = 60.0
"""No write takes longer from noting its change to its commit."""


def database_now(dialect: Dialect) -> ColumnElement[datetime]:
    """The database's clock, which all machines share, as an expression."""
    if dialect.name == "sqlite":
        # In the form that instants are stored in: microseconds, though SQLite knows milliseconds.
        return literal_column("strftime('%Y-%m-%d %H:%M:%f000', 'now')", UtcDateTime())
    return literal_column("clock_timestamp()", UtcDateTime())


def note_changes(subject: Subject, ids: Sequence[int], *, dialect: Dialect) -> Any:
    """Notes a change of each of the subjects; returns rows of (subject_id, revision).

    ids: distinct, at least one; ascending, so that two writers cannot wait for each other.
    """
    assert ids, "something changed"
    insert = sqlite_insert if dialect.name == "sqlite" else postgresql_insert
    now = database_now(dialect)
    rows = [
        {"subject": subject, "subject_id": each, "revision": 1, "changed_at": now}
        for each in sorted(set(ids))
    ]
    statement = insert(Change).values(rows)
    return statement.on_conflict_do_update(
        index_elements=[Change.subject, Change.subject_id],
        set_={"revision": Change.revision + 1, "changed_at": now, "claimed_until": None},
    ).returning(Change.subject_id, Change.revision)


def pending_changes(
    *, version: str, since: datetime, now: Any, limit: int
) -> Select[str, int, int]:
    """Rows of (subject, subject_id, revision), oldest first, that the overlay of a version lacks.

    since: `Manifest.changes_since`. now: the database's clock; what another worker has claimed is
    left out while its claim lasts.
    """
    return (
        select(Change.subject, Change.subject_id, Change.revision)
        .where(
            Change.changed_at >= since,
            or_(
                Change.published_version.is_distinct_from(version),
                Change.published_revision < Change.revision,
            ),
            or_(Change.claimed_until.is_(None), Change.claimed_until < now),
        )
        .order_by(Change.changed_at, Change.subject, Change.subject_id)
        .limit(limit)
    )


def published(subject: str, subject_id: int, *, revision: int, version: str) -> Update:
    """Notes that the overlay of a version holds this revision; a later change stays pending."""
    return (
        update(Change)
        .where(Change.subject == subject, Change.subject_id == subject_id)
        .where(
            or_(
                Change.published_version.is_distinct_from(version),
                Change.published_revision < revision,
            )
        )
        .values(published_revision=revision, published_version=version, claimed_until=None)
    )


def forget_changes(*, before: datetime) -> Delete:
    """Removes what every kept snapshot contains, and its overlay has said."""
    return delete(Change).where(
        Change.changed_at < before, Change.published_revision >= Change.revision
    )


def count_pending(*, version: str, since: datetime) -> Select[int, datetime]:
    """How many changes the overlay of a version lacks, and since when: (count, oldest)."""
    return select(func.count(), func.min(Change.changed_at)).where(
        Change.changed_at >= since,
        or_(
            Change.published_version.is_distinct_from(version),
            Change.published_revision < Change.revision,
        ),
    )
