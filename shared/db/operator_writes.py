"""What operators write: restaurants and users, many or one, and the erasure of a user.

Each function is one transaction, which the caller commits: rows, keys, notes of changes and the
row of the audit stand or fall together. Locks are taken in the order table, rows, changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from shared.db.audit import Action, record_action
from shared.db.changes import note_changes
from shared.db.locks import wait_for_locks
from shared.db.models import User
from shared.db.targets import RESTAURANTS, USERS, Target
from shared.db.upserts import OUTCOMES, Compared, Merged, Staging

LOCK_SECONDS: Final = 8.0
"""How long it waits for its turn, behind an import for instance."""


class Actor(NamedTuple):
    """Who asks, and in which request."""

    role: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Written:
    """What became of each row. `switched`: restaurants as (id, is it closed now, revision)."""

    rows: tuple[Compared, ...]
    switched: tuple[tuple[int, bool, int], ...] = ()


def put_restaurants(
    connection: Connection, rows: Sequence[tuple[Any, ...]], *, actor: Actor
) -> Written:
    """Rows of (columns of RESTAURANTS..., line), each id once, replace what is stored or are added.

    What people find restaurants by is kept in step; restaurants that open or close are noted.
    """
    staging = _staged(connection, RESTAURANTS, rows)
    compared, merged = tuple(staging.compare()), staging.merge()
    record_rows(connection, "restaurants.put", [row.outcome for row in compared], actor)
    return Written(compared, _switched(rows, merged))


def change_restaurant(
    connection: Connection, restaurant_id: int, values: Mapping[str, Any], *, actor: Actor
) -> tuple[dict[str, Any], Written] | None:
    """Changes some columns of one restaurant, and returns all of them. None where there is none."""
    staging = _staged(connection, RESTAURANTS, ())
    table = RESTAURANTS.table
    columns = [table.c[name] for name in RESTAURANTS.columns]
    stored = connection.execute(select(*columns).where(table.c.id == restaurant_id)).one_or_none()
    if stored is None:
        return None
    changed = {**stored._asdict(), **values}
    row = (*changed.values(), 0)
    staging.add([row])
    compared = tuple(staging.compare())
    merged = staging.merge()
    _record(connection, "restaurant.change", str(restaurant_id), {"columns": sorted(values)}, actor)
    return changed, Written(compared, _switched([row], merged))


def put_users(connection: Connection, rows: Sequence[tuple[Any, ...]], *, actor: Actor) -> Written:
    """Rows of (columns of USERS..., line), each id once; who is new or moved is noted.

    What else is known of a user says nothing about lists.
    """
    staging = _staged(connection, USERS, rows)
    compared = tuple(staging.compare())
    updated = [row.id for row in compared if row.outcome == "updated"]
    stored = connection.execute(select(User.id, User.city).where(User.id.in_(updated)))
    was = {row.id: row.city for row in stored}
    staging.merge()
    city = USERS.columns.index("city")
    ids = [row.id for row in compared if row.outcome == "created"]
    ids += [row[0] for row in rows if row[0] in was and row[city] != was[row[0]]]
    if ids:
        connection.execute(note_changes("user", ids, dialect=connection.dialect))
    record_rows(connection, "users.put", [row.outcome for row in compared], actor)
    return Written(compared)


def erase_user(connection: Connection, user_id: int, *, actor: Actor) -> int:
    """Removes a user with orders, preferences, hidden restaurants and keys of requests.

    Returns the revision of the change, which is noted even where there is no such user: a snapshot
    may still know one. The rows go by the foreign keys of their tables.
    """
    wait_for_locks(connection, LOCK_SECONDS)
    existed = connection.scalar(select(User.id).where(User.id == user_id)) is not None
    # Adds or locks the row first, as all who write users do; those who refer to it go on.
    connection.execute(_add_or_lock(connection, user_id))
    noting = note_changes("user", [user_id], dialect=connection.dialect)
    revision: int = connection.execute(noting).one().revision
    connection.execute(delete(User).where(User.id == user_id))
    _record(connection, "user.erase", str(user_id), {"existed": existed}, actor)
    return revision


def _staged(connection: Connection, target: Target, rows: Sequence[tuple[Any, ...]]) -> Staging:
    """Holding the lock, so that what is compared holds until the merge."""
    wait_for_locks(connection, LOCK_SECONDS)
    staging = Staging(connection, target)
    staging.lock()
    staging.add(rows)
    return staging


def _add_or_lock(connection: Connection, user_id: int) -> Any:
    insert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    return (
        insert(User)
        .values(id=user_id)
        .on_conflict_do_update(index_elements=[User.id], set_={"name": User.name})
    )


def _switched(rows: Sequence[tuple[Any, ...]], merged: Merged) -> tuple[tuple[int, bool, int], ...]:
    active = RESTAURANTS.columns.index("is_active")
    is_active = {row[0]: row[active] for row in rows} if merged.activity else {}
    return tuple((each, not is_active[each], revision) for each, revision in merged.activity)


def record_rows(
    connection: Connection,
    action: Action,
    outcomes: Sequence[str],
    actor: Actor,
    *,
    kinds: Sequence[str] = OUTCOMES,
) -> None:
    """An audit row for many lines: how many of each kind of outcome."""
    counts = {each: sum(outcome == each for outcome in outcomes) for each in kinds}
    _record(connection, action, f"{len(outcomes)} rows", counts, actor)


def _record(
    connection: Connection, action: Action, subject: str, detail: Mapping[str, Any], actor: Actor
) -> None:
    connection.execute(
        record_action(
            at=datetime.now(UTC),
            actor=actor.role,
            action=action,
            subject=subject,
            detail={**detail, "request_id": actor.request_id},
        )
    )
