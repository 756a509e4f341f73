"""What the database says of a few users or restaurants now, in few statements.

Read after the change was claimed, so that what is read is at least as new as its revision.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, select

from shared.db import changes
from shared.db.audit import erasures
from shared.db.changes import Subject
from shared.db.engine import database_errors
from shared.db.models import HiddenRestaurant, Order, Preferences, Restaurant, User
from shared.snapshot.overlay import UserExclusion
from worker.extract import MAX_AHEAD, epoch_seconds, reading

ROWS_AT_A_TIME = 20_000

T = TypeVar("T")

_NONE: NDArray[np.int64] = np.empty(0, np.int64)


@dataclass(slots=True)
class UserState:
    """`is_known` is false of a user who was erased, or never was."""

    is_known: bool = False
    city: str | None = None
    created_at: datetime | None = None
    erased_at: int = 0
    """As `UserExclusion.erased_at`."""
    hidden: frozenset[int] = frozenset()
    preferences: Any = None
    """A row of `cuisines`, `price_ranges` and `city`, or None."""
    has_orders: bool = False
    """Also where none of them can be used."""
    restaurant_ids: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    epoch_seconds: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    """Of the orders that can be used, shape (orders,)."""


def changed(
    engine: Engine,
    subject: Subject,
    read: Callable[[Connection, list[int]], T],
    *,
    limit: int,
    since: datetime | None = None,
) -> Iterator[tuple[dict[int, int], T]]:
    """Block after block of at most `limit`, the revisions of what changed and what `read` finds.

    since: only what changed from then on. Each block is read in a transaction of its own, which
    has ended when it is yielded. Raises DatabaseUnavailable.
    """
    last = -1
    while True:
        with database_errors(), reading(engine) as connection:
            rows = connection.execute(
                changes.changes_after(subject, last, limit=limit, since=since)
            ).all()
            if not rows:
                return
            revisions = {row.subject_id: row.revision for row in rows}
            found = read(connection, list(revisions))
        yield revisions, found
        last = rows[-1].subject_id


def read_users(
    connection: Connection, user_ids: Sequence[int], *, now: datetime, oldest: datetime | None
) -> dict[int, UserState]:
    """All of them by id, in the order of the ids, as one transaction sees them.

    oldest: since when the oldest kept snapshot may lack writes; None where no erasures are asked
    for.
    """
    found = {user_id: UserState() for user_id in user_ids}
    _read_facts(connection, found)
    if oldest is not None:
        _read_erasures(connection, found, oldest)
    orders: dict[int, list[NDArray[np.int64]]] = {}
    for rows in _orders(connection, user_ids):
        for user_id, columns in _by_user(rows):
            orders.setdefault(user_id, []).append(columns)
    latest = int((now + MAX_AHEAD).timestamp())
    for user_id, blocks in orders.items():
        columns = np.concatenate(blocks, axis=1)
        state = found[user_id]
        state.has_orders = True
        state.restaurant_ids, state.epoch_seconds = columns[:, columns[1] <= latest]
    return found


def read_known(
    connection: Connection, user_ids: Iterable[int], *, oldest: datetime
) -> dict[int, UserState]:
    """As much of users, by id, as says what is not shown to them. oldest: as in `read_users`."""
    found = {user_id: UserState() for user_id in user_ids}
    _read_known(connection, found)
    _read_erasures(connection, found, oldest)
    return found


def exclusions_of(
    states: Mapping[int, UserState], revisions: Mapping[int, int]
) -> dict[int, UserExclusion]:
    """Both by user id."""
    return {
        user_id: UserExclusion(
            revisions[user_id], not state.is_known, state.hidden, state.erased_at
        )
        for user_id, state in states.items()
    }


def _read_erasures(connection: Connection, found: dict[int, UserState], oldest: datetime) -> None:
    """Of those who came after one."""
    came = [
        user_id
        for user_id, state in found.items()
        if state.created_at is not None and state.created_at >= oldest
    ]
    if came:
        for user_id, at in connection.execute(erasures(came, since=oldest)):
            found[int(user_id)].erased_at = ceil(at.timestamp())


def read_active(connection: Connection, restaurant_ids: Sequence[int]) -> dict[int, bool]:
    """Whether each restaurant is shown; one without a row is not."""
    found = dict.fromkeys(restaurant_ids, False)
    statement = select(Restaurant.id, Restaurant.is_active).where(Restaurant.id.in_(restaurant_ids))
    found.update((row.id, bool(row.is_active)) for row in connection.execute(statement))
    return found


def _read_known(connection: Connection, found: dict[int, UserState]) -> None:
    users = select(User.id, User.city, User.created_at).where(User.id.in_(found))
    for user in connection.execute(users):
        state = found[user.id]
        state.is_known, state.city, state.created_at = True, user.city, user.created_at
    hidden: dict[int, set[int]] = {}
    statement = select(HiddenRestaurant.user_id, HiddenRestaurant.restaurant_id)
    for each in connection.execute(statement.where(HiddenRestaurant.user_id.in_(found))):
        hidden.setdefault(each.user_id, set()).add(each.restaurant_id)
    for user_id, restaurant_ids in hidden.items():
        found[user_id].hidden = frozenset(restaurant_ids)


def _read_facts(connection: Connection, found: dict[int, UserState]) -> None:
    _read_known(connection, found)
    statement = select(
        Preferences.user_id, Preferences.cuisines, Preferences.price_ranges, Preferences.city
    )
    for row in connection.execute(statement.where(Preferences.user_id.in_(found))):
        found[row.user_id].preferences = row


def _orders(connection: Connection, user_ids: Sequence[int]) -> Iterator[NDArray[np.int64]]:
    """Blocks of shape (n, 3): user, restaurant, seconds since 1970, or the latest where unknown."""
    never = np.iinfo(np.int64).max
    seconds = epoch_seconds(connection, Order.order_date)
    statement = select(Order.user_id, Order.restaurant_id, seconds).where(
        Order.user_id.in_(user_ids)
    )
    streamed = connection.execution_options(stream_results=True, max_row_buffer=ROWS_AT_A_TIME)
    for rows in streamed.execute(statement).partitions(ROWS_AT_A_TIME):
        yield np.array(
            [(user, place, never if when is None else when) for user, place, when in rows], np.int64
        )


def _by_user(rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(user id, columns of shape (2, n)) of each user in a block."""
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    starts = np.flatnonzero(np.diff(rows[:, 0], prepend=rows[0, 0] - 1))
    for part in np.split(rows, starts[1:]):
        yield int(part[0, 0]), part[:, 1:].T
