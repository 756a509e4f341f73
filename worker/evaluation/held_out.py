"""What a model may see, and what it is then judged by; as arrays, and as files of arrays."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.ranking.array_files import load_array, load_fields, save_array, save_fields
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.ragged import pick_rows, select_users

_MATRIX = "matrix"
_OWN_ARRAYS = ("users", "indptr", "targets", "is_new", "orders", "restaurant_orders")
_IS_NEW_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The interactions before a cut, and the targets of some of their users after it."""

    train: InteractionMatrix
    users: NDArray[np.int32]
    """Rows of the users with targets, ascending, shape (asked,)."""
    indptr: NDArray[np.int64]
    """Shape (asked + 1,): targets of the u-th at `indptr[u]:indptr[u + 1]`, one at least."""
    targets: NDArray[np.int32]
    """Restaurant rows, each once a user, shape (targets,)."""
    is_new: NDArray[np.bool_]
    """Whether the user had not ordered there before, shape (targets,)."""
    orders: NDArray[np.int32]
    """Orders of each asked user before the cut, shape (asked,)."""
    restaurant_orders: NDArray[np.int64]
    """Orders at each restaurant before the cut, shape (restaurants,)."""

    def histories(self) -> InteractionMatrix:
        """The interactions of the asked users alone: their u-th is row u. A copy unless all are."""
        return select_users(self.train, self.users)


def sample_users(held_out: HeldOut, *, limit: int, seed: int) -> HeldOut:
    """At most `limit` of the asked users, drawn by the seed; the interactions stay whole."""
    if len(held_out.users) <= limit:
        return held_out
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(held_out.users), limit, replace=False))
    return take_users(held_out, chosen)


def take_users(held_out: HeldOut, chosen: NDArray[np.integer]) -> HeldOut:
    """Some of the asked users by their place among them, ascending."""
    indptr, places = pick_rows(held_out.indptr, chosen)
    return dataclasses.replace(
        held_out,
        users=held_out.users[chosen],
        indptr=indptr,
        targets=held_out.targets[places],
        is_new=held_out.is_new[places],
        orders=held_out.orders[chosen],
    )


def mark_new(
    matrix: InteractionMatrix, users: NDArray[np.int32], targets: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Whether each user's one target is missing from that user's history, shape (users,)."""
    restaurants = len(matrix.restaurant_ids)
    is_new = np.ones(len(users), np.bool_)
    for start in range(0, len(users), _IS_NEW_BLOCK):
        block = users[start : start + _IS_NEW_BLOCK]
        history = select_users(matrix, block)
        user = np.arange(len(block), dtype=np.int64)
        known = np.repeat(user, np.diff(history.indptr)) * restaurants + history.restaurants
        wanted = user * restaurants + targets[start : start + _IS_NEW_BLOCK]
        is_new[start : start + _IS_NEW_BLOCK] = ~np.isin(wanted, known, kind="sort")
    return is_new


def save(held_out: HeldOut, folder: Path) -> None:
    folder.mkdir(parents=True)
    save_fields(folder, _MATRIX, held_out.train)
    for name in _OWN_ARRAYS:
        save_array(folder / name, getattr(held_out, name))


def load(folder: Path) -> HeldOut:
    """What `save` wrote, mapped."""
    train = load_fields(folder, _MATRIX, InteractionMatrix)
    return HeldOut(train=train, **{name: load_array(folder / name) for name in _OWN_ARRAYS})
