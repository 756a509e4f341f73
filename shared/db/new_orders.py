"""Writing new orders: many callers' at once, in one transaction that the caller commits.

Each order adds its user where there is none yet, notes that the user changed, and remembers the
key it was sent under. What is refused of one order leaves the others alone. The statements come in
an order that all writers keep, and their rows ascending, so that no two wait for each other.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    Delete,
    Dialect,
    Select,
    String,
    bindparam,
    delete,
    func,
    insert,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from shared.db.changes import note_changes_of
from shared.db.models import IdempotencyKey, Order, Restaurant, User
from shared.db.orders import LeanRestaurant, StoredOrder, plain_amount
from shared.errors import FieldError, InvalidInput

KEY_HOURS: Final = 48
"""How long keys are kept: twice what is promised, so that clocks need not agree."""
PRUNED_AT_ONCE: Final = 1000

_KEY_HEADER = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class NewOrder:
    """`order_date` in UTC; `body_hash` tells one body from another under the same `key`."""

    user_id: int
    restaurant_id: int
    order_date: datetime
    total_amount: Decimal | None
    rating: float | None
    key: str | None = None
    body_hash: str = ""


class Placed(NamedTuple):
    """`revision` of the user's changes; None where an earlier request placed the order."""

    order: StoredOrder
    revision: int | None


class _Known(NamedTuple):
    body_hash: str
    order: StoredOrder


_Key = tuple[int, str]

_USERS: Any = User.__table__
_ORDERS: Any = Order.__table__
_KEYS: Any = IdempotencyKey.__table__
_RESTAURANTS: Any = Restaurant.__table__


def place_orders(
    connection: Connection,
    orders: Sequence[NewOrder],
    *,
    new_id: Callable[[], int],
    now: datetime,
    seen_users: Container[int] = (),
) -> list[Placed | InvalidInput]:
    """The outcome of each order, in their order. Raises IntegrityError.

    That is where an id is taken or a user was erased meanwhile: nothing of it may be committed,
    and everything may be tried again. `seen_users` existed a while ago, and are not added.
    """
    insert_or_ignore = _insert_or_ignore(connection.dialect)
    users = sorted({order.user_id for order in orders})
    if connection.dialect.name != "sqlite":
        users = [user_id for user_id in users if user_id not in seen_users]
    # Always on SQLite: a write, so that it takes the lock before anything is read.
    if users:
        connection.execute(insert_or_ignore(_USERS), [{"id": user_id} for user_id in users])
    known = _known_keys(connection, orders)
    restaurants = _open_restaurants(connection, orders)
    firsts = _first_of_each_key(orders)
    accepted = {
        place
        for place in firsts
        if _key(orders[place]) not in known and orders[place].restaurant_id in restaurants
    }
    placed: dict[int, Placed] = {}
    if accepted:
        revisions = _note(connection, {orders[place].user_id for place in accepted})
        ids = {place: new_id() for place in sorted(accepted)}
        lost = _remember_keys(connection, orders, ids, now=now)
        if lost:  # another process placed them since they were looked for
            known |= _known_keys(connection, [orders[place] for place in lost])
            for place in lost:
                del ids[place]
        if ids:
            connection.execute(insert(_ORDERS), [_row(orders[p], ids[p]) for p in ids])
        for place, order_id in ids.items():
            order = orders[place]
            stored = StoredOrder(
                order_id,
                restaurants[order.restaurant_id],
                order.order_date,
                plain_amount(order.total_amount),
                order.rating,
            )
            placed[place] = Placed(stored, revisions[order.user_id])
            if (key := _key(order)) is not None:
                known[key] = _Known(order.body_hash, stored)
    return [
        placed.get(place) or _outcome(order, known, restaurants)
        for place, order in enumerate(orders)
    ]


def forget_keys(*, now: datetime) -> Delete:
    """Removes keys older than KEY_HOURS, at most PRUNED_AT_ONCE."""
    old = (
        select(_KEYS.c.user_id, _KEYS.c.key)
        .where(_KEYS.c.created_at < now - timedelta(hours=KEY_HOURS))
        .order_by(_KEYS.c.created_at)
        .limit(PRUNED_AT_ONCE)
    )
    return delete(_KEYS).where(tuple_(_KEYS.c.user_id, _KEYS.c.key).in_(old))


def _outcome(
    order: NewOrder, known: dict[_Key | None, _Known], restaurants: dict[int, LeanRestaurant]
) -> Placed | InvalidInput:
    """Of an order that was placed before, or is refused."""
    before = known.get(_key(order))
    if before is None:
        assert order.restaurant_id not in restaurants, "else it would have been placed"
        return _refused("body", "restaurant_id", "names no restaurant that takes orders")
    if before.body_hash != order.body_hash:
        return _refused("header", _KEY_HEADER, "was used with another body")
    return Placed(before.order, None)


def _refused(location: str, name: str, detail: str) -> InvalidInput:
    kind = "body member" if location == "body" else location
    return InvalidInput(f"{kind} {name}: {detail}", (FieldError(location, name, detail),))


def _key(order: NewOrder) -> _Key | None:
    return None if order.key is None else (order.user_id, order.key)


def _first_of_each_key(orders: Sequence[NewOrder]) -> list[int]:
    """The places of all orders but those that repeat a key of one before them."""
    seen: set[_Key] = set()
    places = []
    for place, order in enumerate(orders):
        key = _key(order)
        if key is None or key not in seen:
            places.append(place)
        if key is not None:
            seen.add(key)
    return places


def _known_keys(connection: Connection, orders: Sequence[NewOrder]) -> dict[_Key | None, _Known]:
    keys = {key for order in orders if (key := _key(order)) is not None}
    if not keys:
        return {}
    values = {"users": sorted({u for u, _ in keys}), "keys": sorted({k for _, k in keys})}
    found: dict[_Key | None, _Known] = {}
    for row in connection.execute(_KNOWN, values):
        if (row.user_id, row.key) in keys:
            restaurant = LeanRestaurant(row.restaurant_id, row.name, row.image_url)
            amount = plain_amount(row.total_amount)
            stored = StoredOrder(row.order_id, restaurant, row.order_date, amount, row.rating)
            found[row.user_id, row.key] = _Known(row.body_hash, stored)
    return found


def _open_restaurants(
    connection: Connection, orders: Sequence[NewOrder]
) -> dict[int, LeanRestaurant]:
    ids = sorted({order.restaurant_id for order in orders})
    rows = connection.execute(_OPEN, {"ids": ids})
    return {row.id: LeanRestaurant(row.id, row.name, row.image_url) for row in rows}


def _note(connection: Connection, users: set[int]) -> dict[int, int]:
    is_sqlite = connection.dialect.name == "sqlite"
    ids: Any = orjson.dumps(sorted(users)).decode() if is_sqlite else sorted(users)
    rows = connection.execute(_noting(connection.dialect), {"ids": ids})
    return {row.subject_id: row.revision for row in rows}


def _noting(dialect: Dialect) -> Any:
    """One text however many users there are: a statement that grows is compiled anew each time."""
    statement = _NOTING.get(dialect.name)
    if statement is None:
        found: Select[int]
        if dialect.name == "sqlite":
            found = select(func.json_each(bindparam("ids")).table_valued("value").c.value)
        else:
            ids = bindparam("ids", type_=ARRAY(BigInteger))
            found = select(func.unnest(ids, type_=BigInteger).label("id"))
        statement = _NOTING[dialect.name] = note_changes_of("user", found, dialect=dialect)
    return statement


def _remember_keys(
    connection: Connection, orders: Sequence[NewOrder], ids: dict[int, int], *, now: datetime
) -> list[int]:
    """Returns the places of orders whose key another process remembered first."""
    keyed = {key: place for place in ids if (key := _key(orders[place])) is not None}
    if not keyed:
        return []
    statement = _insert_or_ignore(connection.dialect)(_KEYS).returning(_KEYS.c.user_id, _KEYS.c.key)
    rows = [
        {
            "user_id": user_id,
            "key": key,
            "body_hash": orders[place].body_hash,
            "order_id": ids[place],
            "created_at": now,
        }
        for (user_id, key), place in sorted(keyed.items())
    ]
    ours = {(row.user_id, row.key) for row in connection.execute(statement, rows)}
    return [place for key, place in keyed.items() if key not in ours]


def _row(order: NewOrder, order_id: int) -> dict[str, Any]:
    return {
        "id": order_id,
        "user_id": order.user_id,
        "restaurant_id": order.restaurant_id,
        "order_date": order.order_date,
        "total_amount": order.total_amount,
        "rating": order.rating,
    }


def _insert_or_ignore(dialect: Dialect) -> Callable[[Any], Any]:
    insert_into: Any = sqlite_insert if dialect.name == "sqlite" else postgresql_insert
    return lambda table: insert_into(table).on_conflict_do_nothing()


_NOTING: dict[str, Any] = {}
_OPEN = select(_RESTAURANTS.c.id, _RESTAURANTS.c.name, _RESTAURANTS.c.image_url).where(
    _RESTAURANTS.c.id.in_(bindparam("ids", expanding=True, type_=BigInteger)),
    _RESTAURANTS.c.is_active.is_(True),
)
_KNOWN = (
    select(
        _KEYS.c.user_id,
        _KEYS.c.key,
        _KEYS.c.body_hash,
        _KEYS.c.order_id,
        _ORDERS.c.restaurant_id,
        _ORDERS.c.order_date,
        _ORDERS.c.total_amount,
        _ORDERS.c.rating,
        _RESTAURANTS.c.name,
        _RESTAURANTS.c.image_url,
    )
    .join(_ORDERS, _ORDERS.c.id == _KEYS.c.order_id)
    .join(_RESTAURANTS, _RESTAURANTS.c.id == _ORDERS.c.restaurant_id)
    .where(
        _KEYS.c.user_id.in_(bindparam("users", expanding=True, type_=BigInteger)),
        _KEYS.c.key.in_(bindparam("keys", expanding=True, type_=String)),
    )
)
