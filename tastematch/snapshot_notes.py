"""What the database says otherwise than an imported version, noted as changes, so it is told.

The version may be older than what is remembered of closed restaurants and erased users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Engine, select

from shared.db import changes
from shared.db.audit import erasures
from shared.db.engine import database_errors, sync_engine
from shared.db.models import Restaurant, User
from shared.errors import DatabaseUnavailable, SchemaError, SnapshotDamaged
from shared.settings import Settings
from shared.snapshot.format import Restaurants, Users
from shared.snapshot.manifest import Manifest
from shared.snapshot.store import SnapshotReader

BLOCK = 500
"""Ids of a question, and of a transaction."""
MAX_NOTED = 100_000
"""Users that the database lacks: where it lacks more, it is another shop's."""

_EVER = datetime(1970, 1, 1, tzinfo=UTC)


class _Noted(NamedTuple):
    restaurants: int
    users: int
    users_not_noted: int
    """Too many: the version shows them."""


def noted_differences(
    settings: Settings, store: SnapshotReader, manifest: Manifest
) -> Iterator[str]:
    """Notes restaurants that are inactive or gone, and users who are gone or came after an erasure.

    A database that has no restaurants, or no users, is not filled yet and says nothing of them.
    Yields what is to be said of it. Raises StoreUnavailable, SnapshotNotFound.
    """
    if settings.lacks_database_file:
        return
    engine = sync_engine(settings, statement_timeout_seconds=settings.db_statement_timeout)
    try:
        noted = _note(engine, store, manifest)
    except (DatabaseUnavailable, SchemaError, SnapshotDamaged) as error:
        yield (
            f"tastematch: not compared with the database: {error.message}; import it again before"
            " it is activated, or it may show closed restaurants and erased users"
        )
        return
    finally:
        engine.dispose()
    if noted.restaurants or noted.users:
        yield (
            f"gone from the database, and not shown: {noted.restaurants:,} restaurants,"
            f" {noted.users:,} users"
        )
    if noted.users_not_noted:
        yield (
            f"tastematch: the database lacks {noted.users_not_noted:,} of its users, as if it were"
            " another shop's: they get their lists from it"
        )


def _note(engine: Engine, store: SnapshotReader, manifest: Manifest) -> _Noted:
    since = manifest.changes_since or _EVER
    restaurants = list(_inactive(engine, Restaurants(_whole(store, manifest, "restaurants")).ids))
    gone, came_back = _strangers(engine, Users(_whole(store, manifest, "users")).ids, since)
    is_foreign = len(gone) > MAX_NOTED
    users = sorted({*came_back, *([] if is_foreign else gone)})
    subjects: tuple[tuple[changes.Subject, list[int]], ...] = (
        ("restaurant", restaurants),
        ("user", users),
    )
    for subject, ids in subjects:
        for block in _blocks(ids):
            with database_errors(), engine.begin() as connection:
                noting = changes.note_changes(subject, block, dialect=connection.dialect)
                connection.execute(noting)
    return _Noted(len(restaurants), len(users), len(gone) if is_foreign else 0)


def _inactive(engine: Engine, ids: Sequence[int]) -> Iterator[int]:
    if not _has_any(engine, Restaurant):
        return
    for block in _blocks(ids):
        with database_errors(), engine.connect() as connection:
            active = select(Restaurant.id).where(Restaurant.id.in_(block), Restaurant.is_active)
            shown = set(connection.scalars(active))
        yield from (each for each in block if each not in shown)


def _strangers(engine: Engine, ids: Sequence[int], since: datetime) -> tuple[list[int], set[int]]:
    """Users who are not there, and those of others' ids: who were erased since, and are there."""
    gone: list[int] = []
    came_back: set[int] = set()
    if not _has_any(engine, User):
        return gone, came_back
    for block in _blocks(ids):
        with database_errors(), engine.connect() as connection:
            known = select(User.id, User.created_at).where(User.id.in_(block))
            created = {row.id: row.created_at for row in connection.execute(known)}
            newer = [each for each, at in created.items() if at >= since]
            if newer:
                erased = connection.execute(erasures(newer, since=since))
                came_back.update(int(row.subject) for row in erased)
        gone += [each for each in block if each not in created]
    return gone, came_back


def _has_any(engine: Engine, table: type[Restaurant | User]) -> bool:
    with database_errors(), engine.connect() as connection:
        return connection.execute(select(table.id).limit(1)).first() is not None


def _blocks(ids: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), BLOCK):
        yield list(ids[start : start + BLOCK])


def _whole(store: SnapshotReader, manifest: Manifest, part: str) -> memoryview:
    if part not in manifest.bytes:
        raise SnapshotDamaged(f"the snapshot has no part {part}")
    return memoryview(b"".join(store.chunks(manifest, part)))
