"""Bulk upserts through a staging table: restaurants, users and orders, many rows a statement.

Rows are staged in a temporary table (COPY where psycopg2 is the driver) and merged by one
statement, so that the outcome of each row is known: new, changed or equal to what is stored. Rows
that are equal are not written. Restaurants that open or close are noted as changes. The caller
commits, and sees to it that an id occurs once in a merge.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from shared.db.changes import note_changes_of
from shared.db.locks import take_turn_on_sqlite
from shared.db.restaurant_keys import write_terms_of_staged
from shared.db.row_forms import CopyText, sqlite_rows
from shared.db.targets import RESTAURANTS, USERS, Reference, Target, staging_table
from shared.parsing import MAX_ID

IDS_A_STATEMENT = 500

RowOutcome = Literal["created", "updated", "unchanged"]
OUTCOMES: tuple[RowOutcome, ...] = ("created", "updated", "unchanged")


class Compared(NamedTuple):
    """What a merge will do with a row."""

    id: int
    line: int
    outcome: RowOutcome


@dataclass(frozen=True, slots=True)
class Merged:
    """Counts of rows, and (line, reason) of each row that names what does not exist.

    `activity`: (id, revision of the change) of each restaurant that opened or closed.
    """

    imported: int
    updated: int
    unchanged: int
    rejected: tuple[tuple[int, str], ...] = ()
    activity: tuple[tuple[int, int], ...] = ()


class Staging:
    """The staging table of one target on one connection; empty between transactions."""

    def __init__(self, connection: Connection, target: Target) -> None:
        self._connection = connection
        self._target = target
        self._is_sqlite = connection.dialect.name == "sqlite"
        self._count = 0
        self._lowest = MAX_ID
        self._highest = 0
        self._staged = staging_table(target, is_sqlite=self._is_sqlite)
        # A connection of a pool may have it from before.
        connection.execute(CreateTable(self._staged, if_not_exists=True))

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Stages rows of (columns..., line). Each id must occur once until the next merge."""
        if not rows:
            return
        rows = self._target.complete(rows)
        names = ", ".join((*self._target.written, "line"))
        if self._is_sqlite:
            marks = ", ".join("?" * (len(self._target.written) + 1))
            statement = f"INSERT INTO {self._staged.name} ({names}) VALUES ({marks})"  # noqa: S608
            self._connection.exec_driver_sql(statement, sqlite_rows(rows))
        elif self._connection.dialect.driver != "psycopg2":
            columns = (*self._target.written, "line")
            values = [dict(zip(columns, row, strict=True)) for row in rows]
            self._connection.execute(insert(self._staged), values)
        else:
            self._copy(f"COPY {self._staged.name} ({names}) FROM STDIN", rows)
        self._count += len(rows)
        ids = [row[0] for row in rows]
        self._lowest = min(self._lowest, *ids)
        self._highest = max(self._highest, *ids)

    @property
    def count(self) -> int:
        """Rows that wait for the merge."""
        return self._count

    def merge(self, *, adds_users: bool = False) -> Merged:
        """Merges the staged rows and empties the staging table.

        `adds_users`: users that rows name and that do not exist are added by their id alone.
        """
        if not self._count:
            return Merged(0, 0, 0)
        self.lock()
        references = self._target.references
        if adds_users:
            references = tuple(r for r in references if r[1] is not USERS.table)
        rejected = self._reject_unknown(references)
        if adds_users:
            self._connection.execute(self._missing_users())
        known = self._connection.execute(self._known()).scalar_one()
        activity: tuple[tuple[int, int], ...] = ()
        if self._target is RESTAURANTS:
            write_terms_of_staged(self._connection, self._staged, has_known=known > 0)
            activity = self._note_activity() if known else ()
        upsert = self._upsert(has_known=known > 0)
        written = self._connection.execute(upsert).rowcount
        imported = self._count - len(rejected) - known
        updated = max(0, written - imported)
        self._connection.execute(
            delete(self._staged) if self._is_sqlite else text(f"TRUNCATE {self._staged.name}")
        )
        self._count = 0
        self._lowest = MAX_ID
        self._highest = 0
        return Merged(imported, updated, known - updated, rejected, activity)

    def lock(self) -> None:
        """Lets no other merge of the target begin before the transaction ends.

        What is staged needs no lock.
        """
        if self._is_sqlite:
            take_turn_on_sqlite(self._connection, self._target.table)
        elif self._target.lock_mode is not None:
            name = self._target.table.name
            self._connection.execute(text(f"LOCK TABLE {name} IN {self._target.lock_mode} MODE"))

    def compare(self) -> list[Compared]:
        """What the merge will do with each staged row, under the lock."""
        table = self._target.table
        outcome = case(
            (table.c.id.is_(None), "created"),
            (or_(*self._differences()), "updated"),
            else_="unchanged",
        )
        statement = select(self._staged.c.id, self._staged.c.line, outcome).select_from(
            self._staged.outerjoin(table, self._same_id())
        )
        return [Compared(*row) for row in self._connection.execute(statement)]

    def _raw(self) -> Any:
        return self._connection.connection.dbapi_connection

    def _copy(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        dialect = self._connection.dialect
        driver: Any = dialect.loaded_dbapi
        cursor = self._raw().cursor()
        try:
            with _unprinted():
                cursor.copy_expert(statement, CopyText(rows))
        except driver.Error as error:
            # A cursor of the driver's own bypasses what SQLAlchemy does at an error.
            if dialect.is_disconnect(error, self._raw(), cursor):
                self._connection.invalidate(error)
            raise DBAPIError.instance(
                statement, None, error, driver.Error, dialect=dialect
            ) from error
        finally:
            cursor.close()

    def _reject_unknown(self, references: tuple[Reference, ...]) -> tuple[tuple[int, str], ...]:
        if not references:
            return ()
        staged = self._staged
        joined: Any = staged
        for column, table, _ in references:
            joined = joined.outerjoin(table, table.c.id == staged.c[column])
        which = case(
            *((table.c.id.is_(None), number) for number, (_, table, _) in enumerate(references))
        )
        statement = (
            select(staged.c.id, staged.c.line, which, *(staged.c[c] for c, _, _ in references))
            .select_from(joined)
            .where(or_(*(table.c.id.is_(None) for _, table, _ in references)))
            .order_by(staged.c.line)
        )
        rejected, ids = [], []
        for row in self._connection.execute(statement):
            _, _, noun = references[row[2]]
            rejected.append((row[1], f"there is no {noun} {row[3 + row[2]]}"))
            ids.append(row[0])
        for at in range(0, len(ids), IDS_A_STATEMENT):
            self._connection.execute(
                delete(staged).where(staged.c.id.in_(ids[at : at + IDS_A_STATEMENT]))
            )
        return tuple(rejected)

    def _missing_users(self) -> Any:
        ids = select(self._staged.c.user_id).distinct().order_by(self._staged.c.user_id)
        return (
            self._insert(USERS.table)
            .from_select(["id"], self._source(ids))
            .on_conflict_do_nothing()
        )

    def _same_id(self) -> Any:
        """The stored row of a staged one.

        The range is implied by the rest, but lets PostgreSQL read that part of the index instead
        of the whole table for each block of a file in the order of ids.
        """
        stored = self._target.table.c.id
        return and_(stored == self._staged.c.id, stored.between(self._lowest, self._highest))

    def _differences(self) -> list[ColumnElement[bool]]:
        stored, staged = self._target.table.c, self._staged.c
        return [stored[name].is_distinct_from(staged[name]) for name in self._target.written[1:]]

    def _note_activity(self) -> tuple[tuple[int, int], ...]:
        stored, staged = self._target.table.c, self._staged.c
        switched = (
            select(staged.id)
            .join(self._target.table, self._same_id())
            .where(stored.is_active != staged.is_active)
        )
        noting = note_changes_of("restaurant", switched, dialect=self._connection.dialect)
        return tuple((row.subject_id, row.revision) for row in self._connection.execute(noting))

    def _known(self) -> Select[Any]:
        table = self._target.table
        return select(func.count()).select_from(self._staged.join(table, self._same_id()))

    def _upsert(self, *, has_known: bool) -> Any:
        table, columns = self._target.table, self._target.written
        source = select(*(self._staged.c[name] for name in columns))
        if has_known:
            # Equal rows stay out of the upsert: PostgreSQL would lock, and so write, each of them.
            source = source.select_from(self._staged.outerjoin(table, self._same_id())).where(
                or_(table.c.id.is_(None), *self._differences())
            )
        source = source.order_by(*(self._staged.c[name] for name in self._target.order))
        statement = self._insert(table).from_select(list(columns), self._source(source))
        updates = {name: statement.excluded[name] for name in columns[1:]}
        return statement.on_conflict_do_update(
            index_elements=["id"],
            set_=updates,
            where=or_(*(table.c[name].is_distinct_from(new) for name, new in updates.items())),
        ).execution_options(preserve_rowcount=True)

    def _insert(self, table: Table) -> Any:
        return sqlite_insert(table) if self._is_sqlite else postgresql_insert(table)

    def _source(self, source: Select[Any]) -> Select[Any]:
        # SQLite needs a WHERE to tell the upsert's ON from a join's.
        return source.where(literal(1) == 1) if self._is_sqlite else source


@contextmanager
def _unprinted() -> Iterator[None]:
    """Keeps psycopg2 from printing: where a server dies in mid-COPY, the driver may write the
    error to stderr through the hook for uncaught ones before it raises it."""
    hook = sys.excepthook
    sys.excepthook = lambda *_: None
    try:
        yield
    finally:
        sys.excepthook = hook
