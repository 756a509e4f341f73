"""Fits the blend to a shop's own orders: a small grid, judged on users' next discoveries.

The caller cuts time: histories are from before the cut, each target is what its user ordered next
and never before. Every combination ranks the same candidates. The defaults stay unless another
combination is better by two standard errors of the paired difference: among 81, the best by chance
alone is often one above.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from worker.ranking.blend import scores
from worker.ranking.blend_weights import DEFAULTS, BlendWeights
from worker.ranking.evidence import Evidence, evidence_blocks
from worker.ranking.history import order_again
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.ragged import select_users
from worker.ranking.scoring import SparseRows
from worker.ranking.surroundings import Surroundings

MIN_TARGETS = 200
MIN_STANDARD_ERRORS = 2.0
GUESTS = (0.65, 0.4, 1.0)
DISTANCES = (0.8, 0.4, 1.2)
POINTS = (0.85, 0.45, 1.3)
CUISINES = (0.1, 0.0, 0.3)

_NDCG_LENGTH = 20
_HIT_LENGTH = 10


@dataclass(frozen=True, slots=True)
class Trial:
    """How one combination ranked the targets."""

    weights: BlendWeights
    ndcg_at_20: float
    hit_rate_at_10: float


@dataclass(frozen=True, slots=True)
class FittedBlend:
    weights: BlendWeights
    targets: int
    """Users with a target, whose history is not empty."""
    trials: tuple[Trial, ...]
    """The defaults first; none where there were too few targets."""


def fit_blend(
    matrix: InteractionMatrix,
    collaborative: SparseRows,
    *,
    targets: NDArray[np.int32],
    user_cities: NDArray[np.uint16],
    surroundings: Surroundings,
) -> FittedBlend:
    """Chooses weights by NDCG@20 of `discover` on the targets.

    matrix: histories of the sampled users, from before the cut (`select_users`). collaborative: as
    `blend_block` takes it, for the same users. targets: restaurant row that each user ordered next
    and never before, -1 where there is none, shape (users,). Users without history do not count.
    About half a millisecond a target.
    """
    has_target = (targets >= 0) & (np.diff(matrix.indptr) > 0)
    counted = np.flatnonzero(has_target)
    if len(counted) < MIN_TARGETS:
        return FittedBlend(weights=DEFAULTS, targets=len(counted), trials=())
    grid = _grid()
    places = np.empty((len(grid), len(counted)), np.int64)
    matrix = select_users(matrix, counted)
    collaborative = collaborative.take(counted)
    user_cities, targets = user_cities[counted], targets[counted]
    for start, stop, evidence in evidence_blocks(
        matrix,
        collaborative,
        history=order_again(matrix, first_user=0, users=len(counted)),
        user_cities=user_cities,
        surroundings=surroundings,
    ):
        for number, place in enumerate(_places(evidence, targets[start:stop], grid)):
            places[number, start:stop] = place
    gains = np.where(places < _NDCG_LENGTH, 1 / np.log2(places + 2.0), 0.0)
    trials = tuple(
        Trial(
            weights=weights,
            ndcg_at_20=float(gain.mean()),
            hit_rate_at_10=float((place < _HIT_LENGTH).mean()),
        )
        for weights, gain, place in zip(grid, gains, places, strict=True)
    )
    best = int(np.argmax([trial.ndcg_at_20 for trial in trials]))
    difference = gains[best] - gains[0]
    error = float(difference.std()) / len(difference) ** 0.5
    is_better = float(difference.mean()) > MIN_STANDARD_ERRORS * error
    return FittedBlend(
        weights=grid[best] if is_better else DEFAULTS, targets=len(counted), trials=trials
    )


def _grid() -> list[BlendWeights]:
    return [
        replace(DEFAULTS, guests=guests, distance=distance, points=points, cuisine=cuisine)
        for guests, distance, points, cuisine in itertools.product(
            GUESTS, DISTANCES, POINTS, CUISINES
        )
    ]


def _places(
    evidence: Evidence, targets: NDArray[np.int32], grid: list[BlendWeights]
) -> Iterator[NDArray[np.int64]]:
    """For each combination: the place of each user's target from 0, shape (users,); the largest
    number where it is no candidate."""
    users = len(targets)
    user = evidence.users
    target = targets.take(user)
    found = np.flatnonzero(evidence.rows == target)
    is_before = evidence.rows < target
    for weights in grid:
        totals = scores(evidence, weights)
        own = np.full(users, np.inf, np.float32)
        own[user[found]] = totals[found]
        own_total = own.take(user)
        is_above = (totals > own_total) | ((totals == own_total) & is_before)
        place = np.bincount(user[is_above], minlength=users)
        place[np.isinf(own)] = np.iinfo(np.int64).max
        yield place
