"""Users x restaurants: who ordered where, how much of it is left after half-lives, and when last.

The only place where database keys become rows (array positions) and back. The builder takes
orders in blocks of any size and any order, and keeps eight bytes of each until `build`. Nothing
here reads a database, and nothing here ranks.
"""

import mmap
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from worker.ranking.activity import Activity
from worker.ranking.decay import SECONDS_PER_DAY, decay

REPEAT_HALF_LIFE_DAYS = 90.0
MAX_RESTAURANTS = 1 << 24

_SECONDS_BITS = 32
_LATEST_SECONDS = (1 << _SECONDS_BITS) - 1  # February 2106
_BUCKET_BITS = 16
_STAGED_ORDERS = 1 << 19
_SLICE_ORDERS = 1 << 18
_OWN_PAGES_FROM_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class InteractionMatrix:
    """Interactions in user rows: those of user u stand at `indptr[u]:indptr[u + 1]`.

    Ten bytes an interaction (a user and a restaurant with one order or more between them), and
    sixteen a user. Restaurants of one user ascend. Users or restaurants without orders have rows.
    """

    user_ids: NDArray[np.int64]
    """Ascending, shape (users,)."""
    restaurant_ids: NDArray[np.int64]
    """Ascending, shape (restaurants,)."""
    indptr: NDArray[np.int64]
    """Shape (users + 1,)."""
    restaurants: NDArray[np.int32]
    """Restaurant rows, shape (interactions,)."""
    repeats: NDArray[np.float32]
    """Sum over the interaction's orders of 2^(-age / half-life): its number of orders when the
    half-life is infinite. Shape (interactions,), above zero."""
    newest_days: NDArray[np.uint16]
    """Day of the interaction's newest order since 1970 (UTC), shape (interactions,)."""
    as_of_seconds: int
    """Where ages are counted from, seconds since 1970."""
    half_life_days: float
    orders: int
    """Orders the interactions are made of."""
    skipped: int
    """Orders left out because their user or restaurant is not in the ids."""

    @property
    def as_of_day(self) -> int:
        return self.as_of_seconds // SECONDS_PER_DAY


@dataclass(frozen=True, slots=True)
class Transposed:
    """The same interactions in restaurant rows: four bytes each. Users of a restaurant ascend."""

    indptr: NDArray[np.int64]
    """Shape (restaurants + 1,)."""
    users: NDArray[np.int32]
    """User rows, shape (interactions,)."""


class MatrixBuilder:
    """Gathers orders; `build` empties it, and leaves the restaurants' `activity`.

    An order is one 64-bit key: user within the bucket, restaurant, second. Keys lie in buckets of
    neighbouring users, so that each bucket is sorted in place and turned into interactions while
    the rest still waits: beyond the eight bytes an order, and the ten an interaction that replace
    them, scratch is one bucket and a slice of a quarter million orders.
    """

    def __init__(self, *, user_ids: NDArray[np.int64], restaurant_ids: NDArray[np.int64]) -> None:
        """Both ascending without repeats. Orders of other users or restaurants are skipped."""
        assert len(restaurant_ids) <= MAX_RESTAURANTS
        assert np.all(np.diff(user_ids) > 0)
        assert np.all(np.diff(restaurant_ids) > 0)
        self._user_ids = user_ids
        self._restaurant_ids = restaurant_ids
        self._restaurant_bits = max(len(restaurant_ids) - 1, 1).bit_length()
        self._user_bits = min(_SECONDS_BITS - self._restaurant_bits, _BUCKET_BITS)
        self._buckets: list[list[NDArray[np.uint64]]] = [
            [] for _ in range((len(user_ids) >> self._user_bits) + 1)
        ]
        self._staged: list[tuple[NDArray[np.int32], NDArray[np.uint64]]] = []
        self._staged_orders = 0
        self._orders = 0
        self._skipped = 0
        self._newest_seconds = 0
        self.activity = Activity.none(len(restaurant_ids))

    def add(
        self,
        *,
        user_ids: NDArray[np.int64],
        restaurant_ids: NDArray[np.int64],
        epoch_seconds: NDArray[np.int64],
    ) -> None:
        """One block of orders, three arrays of shape (n,). Times outside 1970-2105 are clipped."""
        users, is_user = _rows_of(user_ids, self._user_ids)
        restaurants, is_restaurant = _rows_of(restaurant_ids, self._restaurant_ids)
        is_known = is_user & is_restaurant
        known = int(np.count_nonzero(is_known))
        self._skipped += len(users) - known
        self._orders += known
        if not known:
            return
        users, restaurants = users[is_known], restaurants[is_known]
        seconds = np.clip(epoch_seconds[is_known], 0, _LATEST_SECONDS)
        self._newest_seconds = max(self._newest_seconds, int(seconds.max()))
        keys = (users & ((1 << self._user_bits) - 1)).astype(np.uint64)
        keys <<= np.uint64(self._restaurant_bits)
        keys |= restaurants.astype(np.uint64)
        keys <<= np.uint64(_SECONDS_BITS)
        keys |= seconds.astype(np.uint64)
        self._staged.append(((users >> self._user_bits).astype(np.int32), keys))
        self._staged_orders += known
        if self._staged_orders >= _STAGED_ORDERS:
            self._spread()

    def build(
        self,
        *,
        half_life_days: float = REPEAT_HALF_LIFE_DAYS,
        as_of_seconds: int | None = None,
    ) -> InteractionMatrix:
        """Turns all orders into interactions and leaves the builder empty.

        as_of_seconds: where ages are counted from; the newest order when None. A caller with a
        clock passes the smaller of the two, so that one order from the future ages nothing.
        """
        self._spread()
        as_of = self._newest_seconds if as_of_seconds is None else as_of_seconds
        # Pages not written to cost nothing, so room for the worst case is cut off at the end.
        restaurants = np.empty(self._orders, np.int32)
        repeats = np.empty(self._orders, np.float32)
        newest_days = np.empty(self._orders, np.uint16)
        indptr = np.zeros(len(self._user_ids) + 1, np.int64)
        self.activity = Activity.none(len(self._restaurant_ids), as_of_seconds=as_of)
        filled = 0
        for bucket, pieces in enumerate(self._buckets):
            keys = _drain(pieces)
            keys.sort()
            for start, stop in _slices(keys):
                pairs, weights, days = self._aggregate(keys[start:stop], as_of, half_life_days)
                end = filled + len(pairs)
                restaurants[filled:end] = pairs & ((1 << self._restaurant_bits) - 1)
                repeats[filled:end] = weights
                newest_days[filled:end] = days
                users = (pairs >> self._restaurant_bits) + (bucket << self._user_bits)
                first, last = int(users[0]), int(users[-1])
                indptr[first + 1 : last + 2] += np.bincount(users - first)
                filled = end
        for array in (restaurants, repeats, newest_days):
            array.resize(filled, refcheck=False)
        np.cumsum(indptr, out=indptr)
        orders, self._orders = self._orders, 0
        return InteractionMatrix(
            user_ids=self._user_ids,
            restaurant_ids=self._restaurant_ids,
            indptr=indptr,
            restaurants=restaurants,
            repeats=repeats,
            newest_days=newest_days,
            as_of_seconds=as_of,
            half_life_days=half_life_days,
            orders=orders,
            skipped=self._skipped,
        )

    def _spread(self) -> None:
        """Moves staged keys to their buckets."""
        if not self._staged:
            return
        buckets = np.concatenate([bucket for bucket, _ in self._staged])
        keys = np.concatenate([keys for _, keys in self._staged])
        self._staged.clear()
        self._staged_orders = 0
        if len(self._buckets) == 1:
            self._buckets[0].append(_copy_to_own_pages(keys))
            return
        counts = np.bincount(buckets, minlength=len(self._buckets))
        keys = keys[np.argsort(buckets, kind="stable")]
        ends = np.cumsum(counts)
        for bucket in np.flatnonzero(counts):
            piece = keys[ends[bucket] - counts[bucket] : ends[bucket]]
            self._buckets[bucket].append(_copy_to_own_pages(piece))

    def _aggregate(
        self, keys: NDArray[np.uint64], as_of_seconds: int, half_life_days: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.uint16]]:
        """Sorted keys of whole pairs -> (user in bucket and restaurant, repeats, newest day).

        Notes them in the restaurants' activity.
        """
        pairs = (keys >> np.uint64(_SECONDS_BITS)).view(np.int64)
        seconds = keys.astype(np.uint32)
        restaurants = pairs & ((1 << self._restaurant_bits) - 1)
        self.activity.note(restaurants=restaurants, seconds=seconds)
        starts = np.flatnonzero(np.diff(pairs, prepend=-1))
        ages = (as_of_seconds - seconds.astype(np.float64)) / SECONDS_PER_DAY
        weights = decay(ages, half_life_days=half_life_days)
        sums = np.add.reduceat(weights, starts, dtype=np.float64).astype(np.float32)
        lasts = np.append(starts[1:], len(keys)) - 1
        days = (seconds[lasts] // SECONDS_PER_DAY).astype(np.uint16)
        return pairs[starts], sums, days


def transpose(matrix: InteractionMatrix) -> Transposed:
    """The interactions in restaurant rows."""
    shape = (len(matrix.user_ids), len(matrix.restaurant_ids))
    assert len(matrix.restaurants) < 1 << 31
    # SciPy moves a value along with each id: the smallest there is.
    pattern = scipy.sparse.csr_array(
        (
            np.ones(len(matrix.restaurants), np.int8),
            matrix.restaurants,
            matrix.indptr.astype(np.int32),
        ),
        shape=shape,
    ).tocsc()
    return Transposed(indptr=pattern.indptr.astype(np.int64), users=pattern.indices)


def user_degrees(matrix: InteractionMatrix) -> NDArray[np.int64]:
    """Restaurants each user ordered from, shape (users,)."""
    return np.diff(matrix.indptr)


def restaurant_degrees(matrix: InteractionMatrix) -> NDArray[np.int64]:
    """Users that ordered from each restaurant, shape (restaurants,)."""
    degrees = np.zeros(len(matrix.restaurant_ids), np.int64)
    for start in range(0, len(matrix.restaurants), _SLICE_ORDERS):
        block = matrix.restaurants[start : start + _SLICE_ORDERS]
        degrees += np.bincount(block, minlength=len(degrees))
    return degrees


def _rows_of(
    ids: NDArray[np.int64], known: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Row of each id among the known ones, and whether it is one of them."""
    if not len(known):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), np.bool_)
    rows = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return rows, known[rows] == ids


def _copy_to_own_pages(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A copy whose memory goes back to the system when it is let go.

    The allocator would keep freed pieces that lie between living ones, and the interactions that
    replace them would come on top.
    """
    if keys.nbytes < _OWN_PAGES_FROM_BYTES:
        return keys.copy()
    pages = np.frombuffer(mmap.mmap(-1, keys.nbytes), np.uint64)
    pages[:] = keys
    return pages


def _drain(pieces: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """All pieces in one array; each is let go as soon as it is copied."""
    keys = np.empty(sum(len(piece) for piece in pieces), np.uint64)
    filled = 0
    while pieces:
        piece = pieces.pop()
        keys[filled : filled + len(piece)] = piece
        filled += len(piece)
    return keys


def _slices(keys: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Cuts sorted keys between pairs, near every quarter million orders."""
    slices = []
    start = 0
    while start < len(keys):
        stop = start + _SLICE_ORDERS
        if stop < len(keys):
            pair_end = int(keys[stop - 1]) | _LATEST_SECONDS
            stop = int(np.searchsorted(keys, np.uint64(pair_end), side="right"))
        stop = min(stop, len(keys))
        slices.append((start, stop))
        start = stop
    return slices
