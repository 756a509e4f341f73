"""Statements of the table of changes: what the overlay of a snapshot has to say.

A write notes its change in its own transaction, so that nothing confirmed is forgotten, whatever
happens to queue, store or worker. A subject has one row however often it changes: its revision
counts the changes, and the row's lock puts the writes of one subject in order. What is noted
before a snapshot began to read is contained in it (`Manifest.changes_since`).

Two marks say how far the worker is. `told_revision`: what holds in every version (hidden
restaurants, an erased user, an inactive restaurant) is in the log of exclusions.
`published_revision`: nothing is left to do; for a user this means that `published_version`
contains the change or has the refreshed lists in its log. A row whose `published_revision` lags
behind is open. A claim, which the next change leaves alone, keeps two workers from one subject.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Delete,
    Dialect,
    Select,
    Table,
    Update,
    bindparam,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from shared.db.models import Change, UtcDateTime

Subject = Literal["user", "restaurant"]

LATE_COMMIT_SECONDS = 60.0
"""No write takes longer from noting its change to its commit."""

_changes: Table = Change.__table__  # type: ignore[assignment]
_is_open = Change.published_revision < Change.revision


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
    now = database_now(dialect)
    rows = [
        {"subject": subject, "subject_id": each, "revision": 1, "changed_at": now}
        for each in sorted(set(ids))
    ]
    return _noting(_insert(dialect).values(rows), now)


def note_changes_of(subject: Subject, ids: Select[int], *, dialect: Dialect) -> Any:
    """As `note_changes`, of the distinct subjects that a query finds, maybe none."""
    now = database_now(dialect)
    found = ids.subquery()
    rows = (
        select(literal(subject), found.c[0], literal_column("1"), now)
        .where(literal(1) == 1)  # SQLite tells the upsert's ON from a join's by a WHERE
        .order_by(found.c[0])
    )
    names = ["subject", "subject_id", "revision", "changed_at"]
    return _noting(_insert(dialect).from_select(names, rows), now)


def renew_changes(subject: Subject, *, since: datetime, dialect: Dialect) -> Update:
    """Says of what changed since an instant that it changed now.

    For a transaction that takes longer than LATE_COMMIT_SECONDS, at its end.
    """
    return (
        update(Change)
        .where(Change.subject == subject, Change.changed_at >= since)
        .values(changed_at=database_now(dialect))
    )


def has_open_changes(*, is_untold: bool = False) -> Select[bool]:
    """Whether anything is left to do about any change. is_untold: as for `open_changes`."""
    found = select(Change.subject_id).where(_is_open)
    if is_untold:
        found = found.where(Change.told_revision < Change.revision)
    return select(exists(found))


def count_open_changes() -> Select[int, datetime]:
    """How many changes are open, and since when: (count, oldest)."""
    return select(func.count(), func.min(Change.changed_at)).where(_is_open)


def open_changes(*, now: datetime, limit: int, is_untold: bool = False) -> Select[str, int]:
    """Keys of open changes that nobody has claimed, oldest first.

    now: the database's clock. is_untold: only those about which the exclusions say nothing yet.
    """
    found = select(Change.subject, Change.subject_id).where(_is_open)
    if is_untold:
        found = found.where(Change.told_revision < Change.revision)
    return _unclaimed(found, now=now).order_by(Change.changed_at).limit(limit)


def outdated_changes(
    *, version: str, since: datetime, now: datetime, limit: int
) -> Select[str, int]:
    """Keys of users whose lists the overlay of a version may lack, the last change first.

    since: `Manifest.changes_since`. now: the database's clock; others' claims are left out.
    """
    found = select(Change.subject, Change.subject_id).where(
        Change.subject == "user",
        Change.changed_at >= since,
        Change.published_version.is_distinct_from(version),
    )
    return _unclaimed(found, now=now).order_by(Change.changed_at.desc()).limit(limit)


def claim_changes(keys: Select[str, int], *, until: datetime) -> Any:
    """Claims them; returns rows of (subject, subject_id, revision, changed_at, told_revision)."""
    free = keys.with_for_update(skip_locked=True)  # which SQLite, with one writer, does without
    return (
        update(Change)
        .where(tuple_(Change.subject, Change.subject_id).in_(free))
        .values(claimed_until=until)
        .returning(
            Change.subject,
            Change.subject_id,
            Change.revision,
            Change.changed_at,
            Change.told_revision,
        )
    )


def tell_changes() -> Update:
    """Marks changes as told, of many rows of {key_subject, key_id, key_revision} at once."""
    return (
        update(_changes)
        .where(_is_key())
        .values(told_revision=bindparam("key_revision"), claimed_until=None)
    )


def publish_changes(*, version: str | None) -> Update:
    """Marks changes as told and published, as `tell_changes`; a later change stays open.

    version: of the log with the users' lists. Whoever comes late, with an old revision, makes the
    row open again: the overlay may hold what they wrote.
    """
    return (
        update(_changes)
        .where(_is_key())
        .values(
            told_revision=bindparam("key_revision"),
            published_revision=bindparam("key_revision"),
            published_version=version,
            claimed_until=None,
        )
    )


def unclaim_changes() -> Update:
    """Gives claims back, of rows of {key_subject, key_id}."""
    return update(_changes).where(_is_key()).values(claimed_until=None)


def reopen_changes(*, since: datetime) -> Update:
    """Makes what changed since an instant open again, all of it to be told anew."""
    return (
        update(_changes)
        .where(_changes.c.changed_at >= since)
        .values(told_revision=0, published_revision=0)
    )


def certain_since(began: datetime) -> datetime:
    """Where changes are counted from by who began to read then: all before are committed.

    began: by the database's clock, before the first row was read.
    """
    return began - timedelta(seconds=LATE_COMMIT_SECONDS)


def changes_after(
    subject: Subject, subject_id: int, *, limit: int, since: datetime | None = None
) -> Select[int, int]:
    """Rows of (subject_id, revision) behind an id, by id; those changed since an instant."""
    found = (
        select(Change.subject_id, Change.revision)
        .where(Change.subject == subject, Change.subject_id > subject_id)
        .order_by(Change.subject_id)
        .limit(limit)
    )
    return found if since is None else found.where(Change.changed_at >= since)


def revisions(subject: Subject, ids: Sequence[int]) -> Select[int, int]:
    """Rows of (subject_id, revision) of those that have a row."""
    return select(Change.subject_id, Change.revision).where(
        Change.subject == subject, Change.subject_id.in_(ids)
    )


def forget_changes(*, before: datetime) -> Delete:
    """Removes what every kept snapshot contains and nothing is left to do about."""
    return delete(Change).where(
        Change.changed_at < before, Change.published_revision >= Change.revision
    )


def _insert(dialect: Dialect) -> Any:
    return (sqlite_insert if dialect.name == "sqlite" else postgresql_insert)(Change)


def _noting(statement: Any, now: ColumnElement[datetime]) -> Any:
    return statement.on_conflict_do_update(
        index_elements=[Change.subject, Change.subject_id],
        set_={"revision": Change.revision + 1, "changed_at": now},
    ).returning(Change.subject_id, Change.revision)


def _unclaimed(found: Select[str, int], *, now: datetime) -> Select[str, int]:
    return found.where(or_(Change.claimed_until.is_(None), Change.claimed_until < now))


def _is_key() -> ColumnElement[bool]:
    return (_changes.c.subject == bindparam("key_subject")) & (
        _changes.c.subject_id == bindparam("key_id")
    )
