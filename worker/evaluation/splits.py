"""Cuts the orders of a shop in what a model may see and what it is judged by.

Two views. *Time*: everything before a moment against each user's next order after it, as in
service. *Leave last out*: each user's newest order against all other orders; it has more targets,
but a model then knows what others ordered later. Orders of one second are never torn apart: those
of the very second of a cut lie after it, and a user's several orders in one second count as the
one of the smallest restaurant row when they come next, of the largest when they are last.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.evaluation.held_out import HeldOut, mark_new
from worker.order_log import OrderLog, OrderRows
from worker.ranking.matrix import InteractionMatrix, MatrixBuilder

_NEVER = np.uint64(0xFFFFFFFF_FFFFFFFF)
_SECONDS_BITS = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Cuts:
    """Train < `validation_from` <= validation < `test_from` <= test, seconds since 1970."""

    validation_from: int
    test_from: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What a split made of the orders."""

    train_orders: int
    users: int
    """With earlier orders and a target: those that figures are taken over."""
    new_users: int
    """With a target but no earlier order: a segment of their own."""
    repeat_share: float
    """Share of the users whose target is at a restaurant they had ordered from."""
    unseen_targets: int
    """Left out: next orders at restaurants without an order before the cut."""
    unseen_first_targets: int
    """Left out: the same of users without earlier orders."""
    inactive_targets: int
    """Left out: at restaurants that are in no list any more."""
    single_order_users: int
    """Left out of leave-last-out: nothing would be left of them."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def cut(log: OrderLog, *, train_share: float, validation_share: float) -> Cuts:
    """The moments at which these shares of all orders, by count, have been made."""
    assert 0 < train_share <= train_share + validation_share < 1 + 1e-9
    # A share such as .8 + .1 is a hair above .9: the hair must not cost an order.
    validation_from = log.nth_second(int(log.orders * train_share + 1e-6))
    test_from = log.nth_second(int(log.orders * (train_share + validation_share) + 1e-6))
    return Cuts(validation_from=validation_from, test_from=test_from)


def hold_out_next(
    log: OrderLog, *, is_active: NDArray[np.bool_], start: int, stop: int | None = None
) -> tuple[HeldOut, Counts]:
    """Train: all orders before `start`. Target: each user's first one from there to `stop`."""
    gathered = _Gathered(log)
    following = np.full(len(log.user_ids), _NEVER)
    for block in log.blocks():
        is_before = block.seconds < start
        gathered.add(block, is_before)
        is_after = ~is_before if stop is None else ~is_before & (block.seconds < stop)
        np.minimum.at(following, block.users[is_after], _keys(block)[is_after])
    users = np.flatnonzero(following != _NEVER).astype(np.int32)
    return gathered.held_out(users, _restaurants_of(following[users]), is_active)


def hold_out_last(log: OrderLog, *, is_active: NDArray[np.bool_]) -> tuple[HeldOut, Counts]:
    """Train: all orders but each user's newest. Target: that one, of users with two or more."""
    # One is added, so that 0 stays free for users without orders.
    newest = np.zeros(len(log.user_ids), np.uint64)
    for block in log.blocks():
        np.maximum.at(newest, block.users, _keys(block) + np.uint64(1))
    gathered = _Gathered(log)
    for block in log.blocks():
        gathered.add(block, _keys(block) + np.uint64(1) != newest[block.users])
    is_left = gathered.user_orders > 0
    users = np.flatnonzero(is_left).astype(np.int32)
    return gathered.held_out(
        users,
        _restaurants_of(newest[users] - np.uint64(1)),
        is_active,
        single_order_users=int(np.count_nonzero((newest > 0) & ~is_left)),
    )


class _Gathered:
    """The training side of a split, block by block."""

    def __init__(self, log: OrderLog) -> None:
        self._log = log
        self._builder = MatrixBuilder(user_ids=log.user_ids, restaurant_ids=log.restaurant_ids)
        self.user_orders = np.zeros(len(log.user_ids), np.int32)
        self._restaurant_orders = np.zeros(len(log.restaurant_ids), np.int64)

    def add(self, block: OrderRows, is_train: NDArray[np.bool_]) -> None:
        users, restaurants = block.users[is_train], block.restaurants[is_train]
        np.add.at(self.user_orders, users, 1)
        self._restaurant_orders += np.bincount(restaurants, minlength=len(self._restaurant_orders))
        self._builder.add(
            user_ids=self._log.user_ids[users],
            restaurant_ids=self._log.restaurant_ids[restaurants],
            epoch_seconds=block.seconds[is_train].astype(np.int64),
        )

    def held_out(
        self,
        users: NDArray[np.int32],
        targets: NDArray[np.int32],
        is_active: NDArray[np.bool_],
        *,
        single_order_users: int = 0,
    ) -> tuple[HeldOut, Counts]:
        train: InteractionMatrix = self._builder.build()
        is_seen = self._restaurant_orders[targets] > 0
        is_kept = is_seen & is_active[targets]
        is_first = self.user_orders[users] == 0
        is_new = mark_new(train, users, targets)
        known = int(np.count_nonzero(is_kept & ~is_first))
        counts = Counts(
            train_orders=train.orders,
            users=known,
            new_users=int(np.count_nonzero(is_kept & is_first)),
            repeat_share=float(np.count_nonzero(is_kept & ~is_new) / max(known, 1)),
            unseen_targets=int(np.count_nonzero(~is_seen & ~is_first)),
            unseen_first_targets=int(np.count_nonzero(~is_seen & is_first)),
            inactive_targets=int(np.count_nonzero(is_seen & ~is_active[targets])),
            single_order_users=single_order_users,
        )
        users, targets = users[is_kept], targets[is_kept]
        held_out = HeldOut(
            train=train,
            users=users,
            indptr=np.arange(len(users) + 1, dtype=np.int64),
            targets=targets,
            is_new=is_new[is_kept],
            orders=self.user_orders[users],
            restaurant_orders=self._restaurant_orders,
        )
        return held_out, counts


def _keys(block: OrderRows) -> NDArray[np.uint64]:
    """One number an order that ascends by time, then by restaurant row."""
    return block.seconds.astype(np.uint64) << _SECONDS_BITS | block.restaurants.astype(np.uint64)


def _restaurants_of(keys: NDArray[np.uint64]) -> NDArray[np.int32]:
    return keys.astype(np.uint32).astype(np.int32)
