"""Reading orders: pages of one user's, newest first, and the restaurants they name.

A page takes two statements whatever its length: the orders along their index, then the restaurants
of all of them together. Columns, not objects: a page of twenty costs half of what the ORM takes.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, Select, and_, bindparam, or_, select

from shared.db.models import Order, Restaurant, UtcDateTime

_ORDERS: Any = Order.__table__
_RESTAURANTS: Any = Restaurant.__table__


class LeanRestaurant(NamedTuple):
    """What an order shows of its restaurant."""

    id: int
    name: str
    image_url: str | None


class StoredOrder(NamedTuple):
    """An order as everybody sees it; `order_date` in UTC."""

    id: int
    restaurant: LeanRestaurant
    order_date: datetime
    total_amount: float | None
    rating: float | None

    def as_dict(self) -> dict[str, Any]:
        """The order resource of the HTTP API, of what orjson writes."""
        return {
            "id": self.id,
            "restaurant": self.restaurant._asdict(),
            "order_date": self.order_date,
            "total_amount": self.total_amount,
            "rating": self.rating,
        }


class Position(NamedTuple):
    """Where a page ends: its last order."""

    order_date: datetime
    id: int


def orders_of(
    connection: Connection, user_id: int, *, limit: int, before: Position | None = None
) -> list[StoredOrder]:
    """A user's orders by (order_date, id), the newest first, from behind `before` on."""
    values: dict[str, Any] = {"user_id": user_id, "limit": limit}
    if before is None:
        rows = connection.execute(_FIRST_PAGE, values).all()
    else:
        values |= {"date": before.order_date, "id": before.id}
        rows = connection.execute(_NEXT_PAGE, values).all()
    if not rows:
        return []
    restaurants = lean_restaurants(connection, {row.restaurant_id for row in rows})
    return [
        StoredOrder(
            row.id,
            restaurants[row.restaurant_id],
            row.order_date,
            plain_amount(row.total_amount),
            row.rating,
        )
        for row in rows
    ]


def lean_restaurants(connection: Connection, ids: set[int]) -> dict[int, LeanRestaurant]:
    """Those that exist, by id, active or not."""
    rows = connection.execute(_LEAN, {"ids": sorted(ids)})
    return {row.id: LeanRestaurant(*row) for row in rows}


def plain_amount(amount: Decimal | float | None) -> float | None:
    """The number whose shortest notation is the amount: 14 digits fit a double exactly."""
    return None if amount is None else float(amount)


def _page(*conditions: Any) -> Select[*tuple[Any, ...]]:
    return (
        select(
            _ORDERS.c.id,
            _ORDERS.c.restaurant_id,
            _ORDERS.c.order_date,
            _ORDERS.c.total_amount,
            _ORDERS.c.rating,
        )
        .where(_ORDERS.c.user_id == bindparam("user_id", type_=BigInteger), *conditions)
        .order_by(_ORDERS.c.order_date.desc(), _ORDERS.c.id.desc())
        .limit(bindparam("limit"))
    )


# Made once: putting a statement together costs as much as running it.
_DATE = bindparam("date", type_=UtcDateTime)
_FIRST_PAGE = _page()
_NEXT_PAGE = _page(
    # The first condition bounds the stretch of the index, the second cuts ties.
    _ORDERS.c.order_date <= _DATE,
    or_(
        _ORDERS.c.order_date < _DATE,
        and_(_ORDERS.c.order_date == _DATE, _ORDERS.c.id < bindparam("id")),
    ),
)
_LEAN = select(_RESTAURANTS.c.id, _RESTAURANTS.c.name, _RESTAURANTS.c.image_url).where(
    _RESTAURANTS.c.id.in_(bindparam("ids", expanding=True, type_=BigInteger))
)
