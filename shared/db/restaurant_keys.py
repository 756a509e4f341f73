"""Keeps what restaurants are searched by true to what they are called: keys and terms.

Keys are columns of the restaurant (`shared.search_keys`), terms rows of a table of their own. A
term without its restaurant, or of a name it had before, does no harm: who reads terms compares the
restaurant's keys again. A missing one would hide a restaurant, so terms are written in the
transaction that writes the row, under its lock.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, Table, or_, select, text

from shared.db.models import Restaurant
from shared.db.targets import KEY_COLUMNS, keys_of
from shared.search_keys import search_terms

ROWS_A_BATCH: Final = 4000
SQLITE_CACHE_KB: Final = 16 * 1024
# Those of KEY_COLUMNS that terms are made of.
SEARCHED: Final = KEY_COLUMNS[1:]

_INSERT_SQLITE = "INSERT OR IGNORE INTO restaurant_terms (term, restaurant_id) VALUES (?, ?)"
_DELETE_SQLITE = "DELETE FROM restaurant_terms WHERE term = ? AND restaurant_id = ?"
# No term holds a line feed. An array of many values is read much slower than a text of them.
_PAIRS = (
    "unnest(string_to_array(:terms, chr(10)), CAST(string_to_array(:ids, ',') AS bigint[])) "
    "AS pair (term, restaurant_id)"
)
_INSERT_POSTGRESQL = text(
    f"INSERT INTO restaurant_terms (term, restaurant_id) SELECT term, restaurant_id FROM {_PAIRS} "  # noqa: S608
    "ON CONFLICT DO NOTHING"
)
_DELETE_POSTGRESQL = text(
    f"DELETE FROM restaurant_terms AS kept USING {_PAIRS} "  # noqa: S608
    "WHERE kept.term = pair.term AND kept.restaurant_id = pair.restaurant_id"
)
# A row that was changed since it was read keeps the keys of whoever changed it.
_UPDATE_SQLITE = (
    "UPDATE restaurants SET name_key = ?, search_text = ?, city_key = ?, cuisine_keys = ? "
    "WHERE id = ? AND name = ? AND cuisine_type IS ? AND city IS ?"
)
_UPDATE_POSTGRESQL = text(
    "UPDATE restaurants AS kept SET name_key = made.name_key, search_text = made.search_text, "
    "city_key = made.city_key, cuisine_keys = made.cuisine_keys "
    "FROM unnest(CAST(:name_key AS text[]), CAST(:search_text AS text[]), "
    "CAST(:city_key AS text[]), CAST(:cuisine_keys AS text[]), CAST(:id AS bigint[]), "
    "CAST(:name AS text[]), CAST(:cuisine_type AS text[]), CAST(:city AS text[])) "
    "AS made (name_key, search_text, city_key, cuisine_keys, id, name, cuisine_type, city) "
    "WHERE kept.id = made.id AND kept.name = made.name "
    "AND kept.cuisine_type IS NOT DISTINCT FROM made.cuisine_type "
    "AND kept.city IS NOT DISTINCT FROM made.city"
)


def write_terms_of_staged(connection: Connection, staged: Table, *, has_known: bool) -> None:
    """Terms of the staged restaurants that are new or found by other words than before."""
    # Restaurants that are stored are locked first, so that two writers do not undo each other.
    if has_known:
        for rows in _batches(connection, _changed(staged), staged):
            was = {row[0]: search_terms(*row[4:]) for row in rows}
            now = {row[0]: search_terms(*row[1:4]) for row in rows}
            _delete(connection, ((term, i) for i in was for term in was[i] - now[i]))
            _insert(connection, ((term, i) for i in now for term in now[i]))
    for rows in _batches(connection, _added(staged), staged):
        _insert(connection, ((term, row[0]) for row in rows for term in search_terms(*row[1:])))


def refresh_keys(connection: Connection) -> int:
    """Gives every restaurant the keys of its name, cuisines and city; returns how many lacked them.

    For rows of an earlier release, or written by hand. Commits each batch: it may be killed and run
    again, and beside other writers.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA cache_size=-{SQLITE_CACHE_KB}")
    refreshed = 0
    last = -1
    while True:
        rows = connection.execute(_batch_after(last)).all()
        connection.rollback()
        if not rows:
            return refreshed
        last = rows[-1].id
        made = [(row, keys_of(row.name, row.cuisine_type, row.city)) for row in rows]
        stale = [(row, keys) for row, keys in made if keys != tuple(row[4:])]
        if stale:
            _update(connection, stale)
            connection.commit()
            refreshed += len(stale)


def _batch_after(last: int) -> Select[Any]:
    keys = [getattr(Restaurant, name) for name in KEY_COLUMNS]
    return (
        select(Restaurant.id, Restaurant.name, Restaurant.cuisine_type, Restaurant.city, *keys)
        .where(Restaurant.id > last)
        .order_by(Restaurant.id)
        .limit(ROWS_A_BATCH)
    )


def _update(connection: Connection, stale: Sequence[tuple[Any, tuple[str, ...]]]) -> None:
    rows = [(*keys, row.id, row.name, row.cuisine_type, row.city) for row, keys in stale]
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_UPDATE_SQLITE, rows)
    else:
        names = (*KEY_COLUMNS, "id", "name", "cuisine_type", "city")
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        connection.execute(_UPDATE_POSTGRESQL, columns)
    was = {row.id: search_terms(*row[5:]) for row, _ in stale}
    now = {row.id: search_terms(*keys[1:]) for row, keys in stale}
    _delete(connection, ((term, i) for i in was for term in was[i] - now[i]))
    _insert(connection, ((term, i) for i in now for term in now[i]))


def _changed(staged: Table) -> Select[Any]:
    stored = Restaurant.__table__
    differs = or_(*(stored.c[name] != staged.c[name] for name in SEARCHED))
    return (
        select(
            staged.c.id,
            *(staged.c[name] for name in SEARCHED),
            *(stored.c[name].label(f"was_{name}") for name in SEARCHED),
        )
        .select_from(staged.join(stored, stored.c.id == staged.c.id))
        .where(differs)
        .with_for_update(of=stored)
    )


def _added(staged: Table) -> Select[Any]:
    stored = Restaurant.__table__
    return (
        select(staged.c.id, *(staged.c[name] for name in SEARCHED))
        .select_from(staged.outerjoin(stored, stored.c.id == staged.c.id))
        .where(stored.c.id.is_(None))
    )


def _batches(
    connection: Connection, statement: Select[Any], staged: Table
) -> Iterable[Sequence[Any]]:
    last = -1
    while rows := connection.execute(
        statement.where(staged.c.id > last).order_by(staged.c.id).limit(ROWS_A_BATCH)
    ).all():
        yield rows
        last = rows[-1][0]


def _insert(connection: Connection, pairs: Iterable[tuple[str, int]]) -> None:
    _many(connection, pairs, _INSERT_SQLITE, _INSERT_POSTGRESQL)


def _delete(connection: Connection, pairs: Iterable[tuple[str, int]]) -> None:
    _many(connection, pairs, _DELETE_SQLITE, _DELETE_POSTGRESQL)


def _many(connection: Connection, pairs: Iterable[tuple[str, int]], lite: str, full: Any) -> None:
    # In the order of the key: two writers lock the same rows in the same order.
    ordered = sorted(pairs)
    if not ordered:
        return
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(lite, ordered)
    else:
        terms = "\n".join(term for term, _ in ordered)
        connection.execute(full, {"terms": terms, "ids": ",".join(str(i) for _, i in ordered)})
