"""A small food town: restaurants with places and cuisines, and what histories point to."""

import numpy as np
import scipy.sparse

from tests.worker.ranking.small import matrix_of, random_orders
from worker.ranking.blend import blend_block
from worker.ranking.blend_weights import DEFAULTS, BlendWeights
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.scoring import RankedBlock, SparseRows
from worker.ranking.surroundings import RestaurantFacts, Surroundings, surround


def facts_of(restaurants: int, **columns) -> RestaurantFacts:
    """Columns that are not given: no city, nowhere, no cuisine, every restaurant a candidate."""
    defaults = {
        "city_codes": np.zeros(restaurants, np.uint16),
        "latitudes": np.full(restaurants, np.nan, np.float32),
        "longitudes": np.full(restaurants, np.nan, np.float32),
        "cuisine_codes": np.zeros(restaurants, np.int32),
        "is_candidate": np.ones(restaurants, np.bool_),
    }
    types = {name: column.dtype for name, column in defaults.items()}
    given = {name: np.array(column, types[name]) for name, column in columns.items()}
    return RestaurantFacts(**{**defaults, **given})


def town(restaurants: int, *, seed: int, cities: int = 3, known: float = 0.8) -> RestaurantFacts:
    """Two kilometres of restaurants in each city; some of them nowhere, some inactive."""
    random = np.random.default_rng(seed)
    city = random.integers(0, cities + 1, restaurants)
    is_known = random.random(restaurants) < known
    return facts_of(
        restaurants,
        city_codes=city,
        latitudes=np.where(is_known, 40 + city + random.normal(0, 0.01, restaurants), np.nan),
        longitudes=np.where(is_known, -74 + city + random.normal(0, 0.01, restaurants), np.nan),
        cuisine_codes=random.integers(0, 6, restaurants),
        is_candidate=random.random(restaurants) < 0.9,
    )


def points_of(
    matrix: InteractionMatrix, *, seed: int, share: float = 0.4
) -> scipy.sparse.csr_array:
    """Random points for some restaurants of every user, own ones too, columns in any order."""
    random = np.random.default_rng(seed)
    shape = (len(matrix.user_ids), len(matrix.restaurant_ids))
    dense = np.where(random.random(shape) < share, random.random(shape), 0)
    points = scipy.sparse.csr_array(dense.astype(np.float32))
    for first, last in zip(points.indptr[:-1], points.indptr[1:], strict=True):
        order = random.permutation(last - first)
        points.indices[first:last] = points.indices[first:last][order]
        points.data[first:last] = points.data[first:last][order]
    return scipy.sparse.csr_array((points.data, points.indices, points.indptr), shape=shape)


def as_rows(points: scipy.sparse.csr_array) -> SparseRows:
    return SparseRows(points.indptr.astype(np.int64), points.indices, points.data)


def no_points(matrix: InteractionMatrix) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(
        (len(matrix.user_ids), len(matrix.restaurant_ids)), dtype=np.float32
    )


def small_world(
    *, seed: int, users: int = 30, restaurants: int = 60
) -> tuple[InteractionMatrix, Surroundings, scipy.sparse.csr_array, np.ndarray]:
    """(matrix, surroundings, points, user cities)."""
    orders = random_orders(users=users, restaurants=restaurants, orders=12 * users, seed=seed)
    matrix = matrix_of(orders, restaurants=[5 * number + 2 for number in range(restaurants)])
    surroundings = surround(matrix, town(restaurants, seed=seed))
    cities = np.random.default_rng(seed).integers(0, 5, len(matrix.user_ids)).astype(np.uint16)
    return matrix, surroundings, points_of(matrix, seed=seed), cities


def blend(
    matrix: InteractionMatrix,
    surroundings: Surroundings,
    points: scipy.sparse.csr_array | None = None,
    *,
    cities: np.ndarray | None = None,
    weights: BlendWeights = DEFAULTS,
    n: int = 50,
    block: int | None = None,
) -> tuple[list[RankedBlock], list[RankedBlock]]:
    """for_you and discover of all users, `block` of them at a time."""
    users = len(matrix.user_ids)
    points = no_points(matrix) if points is None else points
    cities = np.zeros(users, np.uint16) if cities is None else cities
    block = block or max(users, 1)
    parts = [
        blend_block(
            matrix,
            as_rows(points[start : start + block]),
            first_user=start,
            user_cities=cities[start : start + block],
            surroundings=surroundings,
            weights=weights,
            n=n,
        )
        for start in range(0, users, block)
    ]
    return [part[0] for part in parts], [part[1] for part in parts]


def lists(blocks: list[RankedBlock]) -> list[list[int]]:
    return [
        row[:length].tolist()
        for block in blocks
        for row, length in zip(block.rows, block.lengths.tolist(), strict=True)
    ]


def scores(blocks: list[RankedBlock]) -> list[list[float]]:
    return [
        row[:length].tolist()
        for block in blocks
        for row, length in zip(block.scores, block.lengths.tolist(), strict=True)
    ]
