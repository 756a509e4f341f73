"""How far restaurants are from where a user orders, and what is popular around each restaurant.

Distances are planar: a degree of latitude has 110.57 km, one of longitude 111.32 km times the
cosine of the latitude of the user's foremost place. Within a city that is right within metres; far
away only "far" matters. Longitudes do not go round at 180 degrees.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.ranking import sort_keys
from worker.ranking.ragged import sizes_of

NEARBY = 8
"""Popular neighbours kept of each restaurant."""

_KM_A_LATITUDE = 110.57
_KM_A_LONGITUDE = 111.32
_EARTH_KM = 6371.0
_CONSIDERED = 48
_QUERY_ROWS = 4096
_COMPARED = 1 << 24
"""Pairs of places up to which all are compared."""
_COMPARED_ROWS = 64


@dataclass(frozen=True, slots=True)
class Places:
    """Where restaurants are, NaN where nobody knows; every array has shape (restaurants,)."""

    y_km: NDArray[np.float32]
    """Along the meridian, from the equator."""
    x_km: NDArray[np.float32]
    """Along the equator: to be multiplied by the cosine of a latitude."""
    cosines: NDArray[np.float32]
    """Of the latitudes."""

    @property
    def is_known(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.y_km)


def places(latitudes: NDArray[np.floating], longitudes: NDArray[np.floating]) -> Places:
    """Degrees of shape (restaurants,). Half a pair, infinities and impossible degrees are NaN."""
    with np.errstate(invalid="ignore"):
        is_real = (np.abs(latitudes) <= 90) & (np.abs(longitudes) <= 180)
    latitude = np.where(is_real, latitudes, np.nan).astype(np.float64)
    longitude = np.where(is_real, longitudes, np.nan).astype(np.float64)
    return Places(
        y_km=(latitude * _KM_A_LATITUDE).astype(np.float32),
        x_km=(longitude * _KM_A_LONGITUDE).astype(np.float32),
        cosines=np.cos(np.radians(latitude)).astype(np.float32),
    )


def nearest_km(
    where: Places,
    *,
    rows: NDArray[np.int32],
    users: NDArray[np.int64],
    anchors: NDArray[np.int32],
    anchor_indptr: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Kilometres from each row to the nearest anchor of its user, shape (rows,).

    users: whose row each is, shape (rows,). User u has the anchors at
    `anchor_indptr[u]:anchor_indptr[u + 1]`, all of them known places. NaN where the row is nowhere
    or the user has no anchor.
    """
    counts = sizes_of(anchor_indptr)
    nearest = np.full(len(rows), np.nan, np.float32)
    if not len(anchors):
        return nearest
    # The place of a user without anchors is not a number; a user with few has the first again.
    firsts = np.minimum(anchor_indptr[:-1], len(anchors) - 1)
    cosines = where.cosines[anchors[firsts]]
    cosines[counts == 0] = np.nan
    numbers = np.arange(counts.max())[:, np.newaxis]
    places = anchors[firsts + np.where(numbers < counts, numbers, 0)]
    y, x = where.y_km.take(rows), where.x_km.take(rows)
    x *= cosines.take(users)
    for y_km, x_km in zip(where.y_km[places], where.x_km[places] * cosines, strict=True):
        squares = y_km.take(users)
        squares -= y
        squares *= squares
        across = x_km.take(users)
        across -= x
        across *= across
        squares += across
        # Of two that are not numbers, either is.
        np.fmin(nearest, squares, out=nearest)
    return np.sqrt(nearest, out=nearest)


def popular_nearby(
    where: Places,
    attraction: NDArray[np.float32],
    *,
    is_candidate: NDArray[np.bool_],
    slope: float,
    nearest_matters_km: float,
    count: int = NEARBY,
) -> NDArray[np.int32]:
    """The candidates around each restaurant that attract most from there, best first.

    From i, j attracts with `attraction_j - slope * ln(km + nearest_matters_km)`, where attraction
    is a logarithm of shape (restaurants,); at most the 48 nearest are considered. Returns rows of
    shape (restaurants, count), filled up with the restaurant itself.
    """
    restaurants = len(attraction)
    found = np.repeat(np.arange(restaurants, dtype=np.int32)[:, np.newaxis], count, axis=1)
    known = np.flatnonzero(where.is_known)
    points, sites = np.unique(_on_globe(where, known), axis=0, return_inverse=True)
    sites = sites.reshape(-1)
    targets = _foremost_of_sites(sites, attraction[known], is_candidate[known], count + 1)
    if not len(targets):
        return found
    considered = min(_CONSIDERED, len(targets))
    nearest_of = _nearest_of(points[sites[targets]], searches=len(points), count=considered)
    best = np.empty((len(points), min(count + 1, considered)), np.int32)
    for start in range(0, len(points), _QUERY_ROWS):
        km, places_ = nearest_of(points[start : start + _QUERY_ROWS])
        rows = known[targets[places_]].astype(np.int32)
        pull = attraction[rows] - slope * np.log(km + nearest_matters_km)
        keys = np.sort(sort_keys.pack(pull.astype(np.float32), rows), axis=1)
        best[start : start + _QUERY_ROWS] = sort_keys.rows_of(keys[:, : best.shape[1]])
    for start in range(0, len(known), _QUERY_ROWS):
        own = known[start : start + _QUERY_ROWS]
        rows = best[sites[start : start + _QUERY_ROWS]]
        # Itself goes to the end, where it only fills up.
        order = np.argsort(rows == own[:, np.newaxis], axis=1, kind="stable")
        rows = np.take_along_axis(rows, order, axis=1)[:, :count]
        found[own, : rows.shape[1]] = rows
    return found


def _nearest_of(
    targets: NDArray[np.float64], *, searches: int, count: int
) -> Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """A function of points (n, 3) that gives the nearest targets: (km, places), both (n, count)."""
    if searches * len(targets) > _COMPARED:
        # Costs eight megabytes to load, which few restaurants need not pay.
        from scipy.spatial import cKDTree

        tree = cKDTree(targets)
        return lambda points: tree.query(points, k=[*range(1, count + 1)])

    def compare(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        km = np.empty((len(points), count))
        places = np.empty((len(points), count), np.int64)
        for start in range(0, len(points), _COMPARED_ROWS):
            some = slice(start, start + _COMPARED_ROWS)
            squares = np.zeros((len(points[some]), len(targets)))
            for axis in range(3):
                squares += (points[some, axis, np.newaxis] - targets[:, axis]) ** 2
            near = np.argpartition(squares, count - 1, axis=1)[:, :count]
            order = np.argsort(np.take_along_axis(squares, near, axis=1), axis=1, kind="stable")
            places[some] = np.take_along_axis(near, order, axis=1)
            km[some] = np.sqrt(np.take_along_axis(squares, places[some], axis=1))
        return km, places

    return compare


def _on_globe(where: Places, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Points in km from the centre of the earth, shape (rows, 3)."""
    latitudes = np.radians(where.y_km[rows].astype(np.float64) / _KM_A_LATITUDE)
    longitudes = np.radians(where.x_km[rows].astype(np.float64) / _KM_A_LONGITUDE)
    return _EARTH_KM * np.column_stack(
        (
            np.cos(latitudes) * np.cos(longitudes),
            np.cos(latitudes) * np.sin(longitudes),
            np.sin(latitudes),
        )
    )


def _foremost_of_sites(
    sites: NDArray[np.intp],
    attraction: NDArray[np.float32],
    is_candidate: NDArray[np.bool_],
    count: int,
) -> NDArray[np.intp]:
    """Positions of the `count` most attractive candidates of each site.

    Thousands at one point (a whole mall, or addresses that were only found to the city) would
    fill every search there, and no more than `count` of them can be chosen.
    """
    positions = np.flatnonzero(is_candidate)
    order = positions[np.lexsort((-attraction[positions], sites[positions]))]
    ordered = sites[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return np.sort(order[place < count])
