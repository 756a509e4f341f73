"""What a model may see, and what it is then judged by; as arrays, and as files of arrays."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from worker.ranking.matrix import InteractionMatrix

_MATRIX_ARRAYS = (
    "user_ids",
    "restaurant_ids",
    "indptr",
    "restaurants",
    "repeats",
    "newest_days",
)
_OWN_ARRAYS = ("users", "indptr", "targets", "is_new", "orders", "restaurant_orders")
_MATRIX_FILE = "matrix.json"
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


def select_users(matrix: InteractionMatrix, users: NDArray[np.int32]) -> InteractionMatrix:
    """The rows of some users, ascending, as a matrix of its own; itself when they are all."""
    if len(users) == len(matrix.user_ids):
        return matrix
    lengths = np.diff(matrix.indptr)[users]
    indptr = np.zeros(len(users) + 1, np.int64)
    np.cumsum(lengths, out=indptr[1:])
    places = np.repeat(matrix.indptr[users] - indptr[:-1], lengths)
    places += np.arange(len(places))
    return dataclasses.replace(
        matrix,
        user_ids=matrix.user_ids[users],
        indptr=indptr,
        restaurants=matrix.restaurants[places],
        repeats=matrix.repeats[places],
        newest_days=matrix.newest_days[places],
    )


def sample_users(held_out: HeldOut, *, limit: int, seed: int) -> HeldOut:
    """At most `limit` of the asked users, drawn by the seed; the interactions stay whole."""
    if len(held_out.users) <= limit:
        return held_out
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(held_out.users), limit, replace=False))
    return take_users(held_out, chosen)


def take_users(held_out: HeldOut, chosen: NDArray[np.integer]) -> HeldOut:
    """Some of the asked users by their place among them, ascending."""
    lengths = np.diff(held_out.indptr)[chosen]
    indptr = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum(lengths, out=indptr[1:])
    places = np.repeat(held_out.indptr[chosen] - indptr[:-1], lengths)
    places += np.arange(len(places))
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
    train = held_out.train
    for name in _MATRIX_ARRAYS:
        np.save(folder / f"matrix-{name}.npy", getattr(train, name), allow_pickle=False)
    for name in _OWN_ARRAYS:
        np.save(folder / f"{name}.npy", getattr(held_out, name), allow_pickle=False)
    numbers = {
        "as_of_seconds": train.as_of_seconds,
        # JSON has no infinity: none is written for a half-life without an end.
        "half_life_days": train.half_life_days if np.isfinite(train.half_life_days) else None,
        "orders": train.orders,
        "skipped": train.skipped,
    }
    (folder / _MATRIX_FILE).write_bytes(orjson.dumps(numbers))


def load(folder: Path) -> HeldOut:
    numbers = orjson.loads((folder / _MATRIX_FILE).read_bytes())
    if numbers["half_life_days"] is None:
        numbers["half_life_days"] = np.inf
    matrix = {name: _array(folder / f"matrix-{name}.npy") for name in _MATRIX_ARRAYS}
    own = {name: _array(folder / f"{name}.npy") for name in _OWN_ARRAYS}
    return HeldOut(train=InteractionMatrix(**matrix, **numbers), **own)


def _array(path: Path) -> Any:
    return np.load(path, allow_pickle=False)
