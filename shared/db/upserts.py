"""Bulk upserts through a staging table: restaurants, users and orders, many rows a statement.

Rows are staged in a temporary table (COPY on PostgreSQL, executemany on SQLite) and merged by one
statement, so that the cost of a row does not grow with the table and the outcome of each row is
known: new, changed or equal to what is stored. The caller owns the transaction and sees to it
that an id occurs once in a batch.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    Select,
    Table,
    case,
    delete,
    func,
    inspect,
    literal,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from shared.db.models import Base, Order, Restaurant, User


@dataclass(frozen=True, slots=True)
class Target:
    """A table that rows are merged into. `columns` begin with the id; `references` must exist."""

    table: Table
    columns: tuple[str, ...]
    references: tuple[tuple[str, Table, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Merged:
    """Counts of rows, and (line, reason) of each row that names what does not exist."""

    imported: int
    updated: int
    unchanged: int
    rejected: tuple[tuple[int, str], ...]


def _table(model: type[Base]) -> Table:
    table = inspect(model).local_table
    assert isinstance(table, Table)
    return table


RESTAURANTS = Target(
    _table(Restaurant),
    (
        "id",
        "name",
        "cuisine_type",
        "description",
        "rating",
        "price_range",
        "city",
        "latitude",
        "longitude",
        "image_url",
        "is_active",
    ),
)
USERS = Target(_table(User), ("id", "name", "email", "city"))
ORDERS = Target(
    _table(Order),
    ("id", "user_id", "restaurant_id", "order_date", "total_amount", "rating"),
    (
        ("user_id", _table(User), "user"),
        ("restaurant_id", _table(Restaurant), "restaurant"),
    ),
)


def ensure_users(connection: Connection, ids: Iterable[int]) -> None:
    """Adds users that are known by their id alone; those that exist stay as they are."""
    insert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    rows = [{"id": user_id} for user_id in sorted(set(ids))]
    if rows:
        connection.execute(insert(User).on_conflict_do_nothing(), rows)


class Staging:
    """The staging table of one target on one connection; it ends with the connection."""

    def __init__(self, connection: Connection, target: Target) -> None:
        self._connection = connection
        self._target = target
        self._is_sqlite = connection.dialect.name == "sqlite"
        staged = f"staged_{target.table.name}"
        columns = [
            Column(name, target.table.c[name].type, primary_key=name == "id", autoincrement=False)
            for name in target.columns
        ]
        self._staged = Table(
            staged,
            MetaData(),
            *columns,
            Column("line", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
            prefixes=["TEMPORARY"],
        )
        self._staged.create(connection, checkfirst=False)

    def merge(self, rows: Sequence[tuple[Any, ...]]) -> Merged:
        """Merges rows of (columns..., line). Each id must occur once."""
        connection, staged = self._connection, self._staged
        connection.execute(delete(staged))
        if self._is_sqlite:
            self._stage_sqlite(rows)
        else:
            self._stage_postgresql(rows)
        rejected = self._reject_unknown_references()
        known, changed = connection.execute(self._known_and_changed()).one()
        connection.execute(self._upsert())
        valid = len(rows) - len(rejected)
        return Merged(valid - known, changed, known - changed, rejected)

    def _stage_sqlite(self, rows: Sequence[tuple[Any, ...]]) -> None:
        names = ", ".join((*self._target.columns, "line"))
        marks = ", ".join("?" * (len(self._target.columns) + 1))
        statement = f"INSERT INTO {self._staged.name} ({names}) VALUES ({marks})"  # noqa: S608
        cursor: Any = self._connection.connection.cursor()
        cursor.executemany(statement, _converted(rows, _SQLITE_FORMS))
        cursor.close()

    def _stage_postgresql(self, rows: Sequence[tuple[Any, ...]]) -> None:
        names = ", ".join((*self._target.columns, "line"))
        cursor: Any = self._connection.connection.cursor()
        cursor.copy_expert(f"COPY {self._staged.name} ({names}) FROM STDIN", _CopyText(rows))
        cursor.close()

    def _reject_unknown_references(self) -> tuple[tuple[int, str], ...]:
        if not self._target.references:
            return ()
        staged = self._staged
        joined: Any = staged
        for column, table, _ in self._target.references:
            joined = joined.outerjoin(table, table.c.id == staged.c[column])
        missing = or_(*(table.c.id.is_(None) for _, table, _ in self._target.references))
        which = case(
            *(
                (table.c.id.is_(None), literal(number))
                for number, (_, table, _) in enumerate(self._target.references)
            )
        )
        statement = (
            select(
                staged.c.id,
                staged.c.line,
                which,
                *(staged.c[c] for c, _, _ in self._target.references),
            )
            .select_from(joined)
            .where(missing)
            .order_by(staged.c.line)
        )
        rejected, ids = [], []
        for row in self._connection.execute(statement):
            _, _, noun = self._target.references[row[2]]
            rejected.append((row[1], f"there is no {noun} {row[3 + row[2]]}"))
            ids.append(row[0])
        for at in range(0, len(ids), 500):
            self._connection.execute(delete(staged).where(staged.c.id.in_(ids[at : at + 500])))
        return tuple(rejected)

    def _known_and_changed(self) -> Select[Any]:
        table, staged = self._target.table, self._staged
        differs = or_(
            *(
                table.c[name].is_distinct_from(staged.c[name])
                for name in self._target.columns
                if name != "id"
            )
        )
        changed = func.coalesce(func.sum(case((differs, 1), else_=0)), 0)
        return select(func.count(), changed).select_from(
            staged.join(table, table.c.id == staged.c.id)
        )

    def _upsert(self) -> Any:
        table, columns = self._target.table, self._target.columns
        insert = sqlite_insert if self._is_sqlite else postgresql_insert
        source = select(*(self._staged.c[name] for name in columns))
        if self._is_sqlite:
            # SQLite needs a WHERE to tell the upsert's ON from a join's.
            source = source.where(literal(1) == 1)
        statement = insert(table).from_select(list(columns), source)
        updates = {name: statement.excluded[name] for name in columns if name != "id"}
        return statement.on_conflict_do_update(
            index_elements=["id"],
            set_=updates,
            where=or_(*(table.c[name].is_distinct_from(new) for name, new in updates.items())),
        )


_SQLITE_FORMS: dict[type, Callable[[Any], Any]] = {
    datetime: lambda value: value.isoformat(" ", "microseconds")[:26],
    Decimal: float,
}
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _converted(
    rows: Iterable[tuple[Any, ...]], forms: dict[type, Callable[[Any], Any]]
) -> Iterable[tuple[Any, ...]]:
    """Rows whose columns of the listed types are turned into what the driver takes."""
    for row in rows:
        yield tuple(
            forms[kind](value) if (kind := type(value)) in forms else value for value in row
        )


class _CopyText:
    """A file-like view of rows in PostgreSQL's COPY text form, made as it is read."""

    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._lines = (_copy_line(row) for row in rows)

    def read(self, _size: int = -1) -> str:
        lines = []
        for line in self._lines:
            lines.append(line)
            if len(lines) == 1000:
                break
        return "".join(lines)


def _copy_line(row: tuple[Any, ...]) -> str:
    return (
        "\t".join(
            "\\N"
            if value is None
            else value.translate(_ESCAPES)
            if type(value) is str
            else str(value)
            for value in row
        )
        + "\n"
    )
