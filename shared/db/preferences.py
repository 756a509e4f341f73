"""What users say about their taste, and which restaurants they do not want to see.

Each function is one write or read of one user in a transaction that the caller commits. A user who
was never seen is added. The change is noted before anything that refers to the user is touched:
its row puts the writes of one user, erasure included, in order. Where a user is erased meanwhile
the database refuses the write with an IntegrityError; it passes when tried again.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, delete, literal, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from shared.db.changes import database_now, note_changes, note_changes_of
from shared.db.models import HiddenRestaurant, Preferences, Restaurant, User
from shared.errors import FieldError, InvalidInput, NotFound


@dataclass(frozen=True, slots=True)
class Taste:
    """Every part may be empty."""

    cuisines: tuple[str, ...] = ()
    price_ranges: tuple[int, ...] = ()
    city: str | None = None


class Hidden(NamedTuple):
    """All that a user hides, ascending, and the revision of the change that made it so."""

    restaurant_ids: tuple[int, ...]
    revision: int


def read_taste(connection: Connection, user_id: int) -> Taste:
    statement = select(Preferences.cuisines, Preferences.price_ranges, Preferences.city)
    row = connection.execute(statement.where(Preferences.user_id == user_id)).one_or_none()
    if row is None:
        return Taste()
    return Taste(tuple(row.cuisines), tuple(row.price_ranges), row.city)


def read_hidden(connection: Connection, user_id: int) -> tuple[int, ...]:
    """Ascending."""
    statement = (
        select(HiddenRestaurant.restaurant_id)
        .where(HiddenRestaurant.user_id == user_id)
        .order_by(HiddenRestaurant.restaurant_id)
    )
    return tuple(connection.scalars(statement))


def put_taste(connection: Connection, user_id: int, taste: Taste) -> None:
    """Replaces all that the user has said before."""
    _note_user(connection, user_id)
    values = {
        "cuisines": list(taste.cuisines),
        "price_ranges": list(taste.price_ranges),
        "city": taste.city,
        "updated_at": database_now(connection.dialect),
    }
    statement = _insert(connection, Preferences).values(user_id=user_id, **values)
    connection.execute(
        statement.on_conflict_do_update(index_elements=[Preferences.user_id], set_=values)
    )


def hide(
    connection: Connection, user_id: int, restaurant_id: int, *, now: datetime, most: int
) -> Hidden:
    """Hides it, if it is not hidden. Raises NotFound; InvalidInput beyond `most` restaurants."""
    revision = _note_user(connection, user_id)
    found = select(
        literal(user_id, BigInteger), Restaurant.id, literal(now, HiddenRestaurant.hidden_at.type)
    ).where(Restaurant.id == restaurant_id)
    statement = _insert(connection, HiddenRestaurant).from_select(
        ["user_id", "restaurant_id", "hidden_at"], found
    )
    connection.execute(statement.on_conflict_do_nothing())
    hidden = read_hidden(connection, user_id)
    if restaurant_id not in hidden:
        raise NotFound("there is no such restaurant")
    if len(hidden) > most:
        detail = f"a user hides at most {most} restaurants"
        raise InvalidInput(detail, (FieldError("path", "restaurant_id", detail),))
    return Hidden(hidden, revision)


def unhide(connection: Connection, user_id: int, restaurant_id: int) -> Hidden | None:
    """Shows it again, if it is hidden. None for a user who was never seen."""
    known = select(User.id).where(User.id == user_id)
    noting = note_changes_of("user", known, dialect=connection.dialect)
    noted = connection.execute(noting).one_or_none()
    if noted is None:
        return None
    connection.execute(
        delete(HiddenRestaurant).where(
            HiddenRestaurant.user_id == user_id, HiddenRestaurant.restaurant_id == restaurant_id
        )
    )
    return Hidden(read_hidden(connection, user_id), noted.revision)


def _note_user(connection: Connection, user_id: int) -> int:
    """Adds the user where there is none, and notes a change; returns its revision."""
    connection.execute(_insert(connection, User).values(id=user_id).on_conflict_do_nothing())
    noting = note_changes("user", [user_id], dialect=connection.dialect)
    revision: int = connection.execute(noting).one().revision
    return revision


def _insert(connection: Connection, model: Any) -> Any:
    return (sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert)(model)
