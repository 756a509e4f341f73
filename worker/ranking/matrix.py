"""Users x restaurants: who ordered where, how much of it is left after half-lives, and when last.

The only place where database keys become rows (array positions) and back. The builder takes
orders in blocks of any size and any order, and keeps eight bytes of each until `build`. Nothing
here reads a database, and nothing here ranks.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from worker.ranking.activity import Activity
from worker.ranking.decay import SECONDS_PER_DAY, decay
from worker.ranking.id_rows import index_ids, rows_of
from worker.ranking.own_pages import copied_to_own_pages, drained

REPEAT_HALF_LIFE_DAYS = 90.0
MAX_RESTAURANTS = 1 << 24

_SECONDS_BITS = 32
_LATEST_SECONDS = (1 << _SECONDS_BITS) - 1  # February 2106
_BUCKET_BITS = 16
_STAGED_ORDERS = 1 << 19
_ADDED_ORDERS = 1 << 14  # at once: the columns in between stay in the processor's cache
_SLICE_ORDERS = 1 << 18


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
        self._known_users = index_ids(user_ids)
        self._known_restaurants = index_ids(restaurant_ids)
        self._restaurant_bits = max(len(restaurant_ids) - 1, 1).bit_length()
        self._user_bits = min(_SECONDS_BITS - self._restaurant_bits, _BUCKET_BITS)
        self._buckets: list[list[NDArray[np.uint64]]] = [
            [] for _ in range((len(user_ids) >> self._user_bits) + 1)
        ]
        # NumPy partitions by numbers of one or two bytes without comparing them.
        self._bucket_type = np.min_scalar_type(len(self._buckets) - 1)
        self._staged_keys = np.empty(0, np.uint64)
        self._staged_buckets = np.empty(0, self._bucket_type)
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
        for start in range(0, len(user_ids), _ADDED_ORDERS):
            some = slice(start, start + _ADDED_ORDERS)
            users, is_user = rows_of(user_ids[some], self._known_users)
            restaurants, is_known = rows_of(restaurant_ids[some], self._known_restaurants)
            is_known &= is_user
            seconds = np.clip(epoch_seconds[some], 0, _LATEST_SECONDS)
            known = int(np.count_nonzero(is_known))
            if known < len(users):
                self._skipped += len(users) - known
                users, restaurants = users[is_known], restaurants[is_known]
                seconds = seconds[is_known]
            if known:
                self._orders += known
                self._newest_seconds = max(self._newest_seconds, int(seconds.max()))
                self._stage(users, restaurants, seconds)

    def _stage(
        self,
        users: NDArray[np.int64] | NDArray[np.int32],
        restaurants: NDArray[np.int64] | NDArray[np.int32],
        seconds: NDArray[np.int64],
    ) -> None:
        """Writes the keys of at most _ADDED_ORDERS orders, given by their rows, behind the rest."""
        if self._staged_orders + len(users) > _STAGED_ORDERS:
            self._spread()
        if not len(self._staged_keys):
            self._staged_keys = np.empty(_STAGED_ORDERS, np.uint64)
            self._staged_buckets = np.empty(_STAGED_ORDERS, self._bucket_type)
        place = slice(self._staged_orders, self._staged_orders + len(users))
        keys = self._staged_keys[place]
        np.bitwise_and(users, (1 << self._user_bits) - 1, out=keys, casting="unsafe")
        keys <<= np.uint64(self._restaurant_bits)
        keys |= restaurants.astype(np.uint64)
        keys <<= np.uint64(_SECONDS_BITS)
        keys |= seconds.view(np.uint64)
        np.right_shift(users, self._user_bits, out=self._staged_buckets[place], casting="unsafe")
        self._staged_orders += len(users)

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
        self._close()
        as_of = self._newest_seconds if as_of_seconds is None else as_of_seconds
        # Pages not written to cost nothing, so room for the worst case is cut off at the end.
        restaurants = np.empty(self._orders, np.int32)
        repeats = np.empty(self._orders, np.float32)
        newest_days = np.empty(self._orders, np.uint16)
        indptr = np.zeros(len(self._user_ids) + 1, np.int64)
        self.activity = Activity.none(len(self._restaurant_ids), as_of_seconds=as_of)
        filled = 0
        for bucket, pieces in enumerate(self._buckets):
            keys = drained(pieces)
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

    def _close(self) -> None:
        """Leaves nothing but the buckets."""
        self._spread()
        nobody = np.empty(0, np.int64)
        self._known_users = self._known_restaurants = index_ids(nobody)

    def _spread(self) -> None:
        """Moves staged keys to their buckets."""
        keys = self._staged_keys[: self._staged_orders]
        buckets = self._staged_buckets[: self._staged_orders]
        self._staged_keys = np.empty(0, np.uint64)
        self._staged_buckets = np.empty(0, self._bucket_type)
        self._staged_orders = 0
        if not len(keys):
            return
        if len(self._buckets) == 1:
            self._buckets[0].append(copied_to_own_pages(keys))
            return
        counts = np.bincount(buckets, minlength=len(self._buckets))
        keys = keys[np.argsort(buckets, kind="stable")]
        ends = np.cumsum(counts)
        for bucket in np.flatnonzero(counts):
            piece = keys[ends[bucket] - counts[bucket] : ends[bucket]]
            self._buckets[bucket].append(copied_to_own_pages(piece))

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
        del restaurants
        is_first = np.ones(len(pairs), np.bool_)
        np.not_equal(pairs[1:], pairs[:-1], out=is_first[1:])
        starts = np.flatnonzero(is_first)
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
