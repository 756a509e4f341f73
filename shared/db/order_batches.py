"""Writing orders that another system knows by their ids: many at once, the same ones again.

A block is one transaction, which the caller commits. Whose order it is and where must exist
already; closed restaurants too have had orders. An order that is there with the same values is not
written; one that differs is replaced.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from shared.db.changes import note_changes
from shared.db.locks import take_turn_on_sqlite, wait_for_locks
from shared.db.models import Order, Restaurant, User
from shared.db.operator_writes import LOCK_SECONDS, Actor, record_rows
from shared.db.orders import plain_amount
from shared.db.targets import ORDERS
from shared.errors import FieldError

OUTCOMES: Final = ("created", "updated", "unchanged", "rejected")

_ORDERS: Any = Order.__table__
_COLUMNS = ORDERS.columns


@dataclass(frozen=True, slots=True)
class GivenOrder:
    """`values` are those of the order's columns by name, `id` and `line` are of its line."""

    id: int
    line: int
    values: Mapping[str, Any]


class Told(NamedTuple):
    """What became of a line."""

    line: int
    id: int
    outcome: Literal["created", "updated", "unchanged", "rejected"]
    errors: tuple[FieldError, ...] = ()


class PutOrders(NamedTuple):
    """`created`: user, restaurant, revision of the user's changes; the oldest order first."""

    told: list[Told]
    created: list[tuple[int, int, int]]


def put_orders(connection: Connection, orders: Sequence[GivenOrder], *, actor: Actor) -> PutOrders:
    """Orders of different ids. Raises IntegrityError where a user was erased meanwhile."""
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite:
        take_turn_on_sqlite(connection, _ORDERS)
    wait_for_locks(connection, LOCK_SECONDS)
    users = _existing(connection, User, (order.values["user_id"] for order in orders))
    restaurants = _existing(
        connection, Restaurant, (order.values["restaurant_id"] for order in orders)
    )
    stored = _stored(connection, [order.id for order in orders])
    told: list[Told] = []
    written: list[GivenOrder] = []
    changed: set[int] = set()
    for order in orders:
        errors = _unknown(order, users, restaurants)
        before = stored.get(order.id)
        if errors:
            told.append(Told(order.line, order.id, "rejected", errors))
        elif before is not None and _comparable(before) == _comparable(order.values):
            told.append(Told(order.line, order.id, "unchanged"))
        else:
            told.append(Told(order.line, order.id, "created" if before is None else "updated"))
            written.append(order)
            changed |= {order.values["user_id"]} | ({before["user_id"]} if before else set())
    revisions: dict[int, int] = {}
    if written:
        noting = note_changes("user", sorted(changed), dialect=connection.dialect)
        revisions = {row.subject_id: row.revision for row in connection.execute(noting)}
        insert = sqlite_insert if is_sqlite else postgresql_insert
        upsert = insert(_ORDERS)
        replaced = {name: upsert.excluded[name] for name in _COLUMNS[1:]}
        connection.execute(
            upsert.on_conflict_do_update(index_elements=["id"], set_=replaced),
            [dict(order.values) for order in sorted(written, key=lambda order: order.id)],
        )
    record_rows(connection, "orders.put", [one.outcome for one in told], actor, kinds=OUTCOMES)
    created = [order.values for order in written if order.id not in stored]
    created.sort(key=lambda values: (values["order_date"], values["id"]))
    return PutOrders(
        told, [(v["user_id"], v["restaurant_id"], revisions[v["user_id"]]) for v in created]
    )


def _existing(connection: Connection, model: Any, ids: Iterable[int]) -> set[int]:
    found = select(model.id).where(model.id.in_(bindparam("ids", expanding=True, type_=BigInteger)))
    return set(connection.execute(found, {"ids": sorted(set(ids))}).scalars())


def _stored(connection: Connection, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    found = select(*(_ORDERS.c[name] for name in _COLUMNS)).where(
        _ORDERS.c.id.in_(bindparam("ids", expanding=True, type_=BigInteger))
    )
    rows = connection.execute(found, {"ids": sorted(ids)}).mappings()
    return {row["id"]: dict(row) for row in rows}


def _comparable(values: Mapping[str, Any]) -> tuple[Any, ...]:
    amount = plain_amount(values["total_amount"])
    return (*(values[name] for name in _COLUMNS if name != "total_amount"), amount)


def _unknown(order: GivenOrder, users: set[int], restaurants: set[int]) -> tuple[FieldError, ...]:
    return tuple(
        FieldError("body", name, f"there is no {noun} {order.values[name]}")
        for name, noun, known in (
            ("user_id", "user", users),
            ("restaurant_id", "restaurant", restaurants),
        )
        if order.values[name] not in known
    )
