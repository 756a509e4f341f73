"""How good rankings are: arithmetic on held-out targets, with intervals.

Per user u with the targets T_u and the ranking r_1, r_2, ...:

    recall@20     |{r_1..r_20} & T_u| / |T_u|
    NDCG@20       sum_{k<=20, r_k in T_u} 1/log2(k+1)  /  sum_{k<=min(|T_u|, 20)} 1/log2(k+1)
    hit rate@10   1 when one of r_1..r_10 is in T_u, else 0
    MRR           1 / (first k <= 20 with r_k in T_u), else 0

as LightGCN's own evaluation has them (He et al. 2020, arXiv:2002.02126); NDCG after Jaervelin &
Kekaelaeinen 2002. Novelty is the mean self-information of what is shown (Zhou et al. 2010, PNAS
107:4511). Intervals are percentiles of a bootstrap over users (Efron 1979). Each user's figures
depend on that user alone and sums over users are taken once, so no block size changes them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LIST_LENGTH = 20
"""Restaurants of a ranking that are looked at."""
HIT_LENGTH = 10
FIGURES = ("recall_at_20", "ndcg_at_20", "hit_rate_at_10", "mrr")
"""Columns of `figures_of`."""

RESAMPLES = 1000
LEVEL = 0.95
MAX_RESAMPLED_USERS = 50_000
"""Beyond, the distribution of a resampled mean is its normal limit to more digits than shown."""

_NORMAL_QUANTILE = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Exposure:
    """What the rankings show in all."""

    coverage: float
    """Share of the candidates that stand in at least one ranking."""
    novelty: float
    """Mean of -log2(share of users who know it) over all places of all rankings, bits."""
    mean_popularity: float
    """Mean number of users who ordered there before, over all places of all rankings."""


def find_hits(
    rows: NDArray[np.int32], indptr: NDArray[np.int64], targets: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Which places of the rankings hold a target of their user, the shape of `rows`.

    rows: shape (users, n), no row twice in a ranking, -1 behind its end. Targets of user u, each
    once: `targets[indptr[u]:indptr[u + 1]]`.
    """
    width = max(int(targets.max(initial=-1)), int(rows.max(initial=-1))) + 2
    user = np.arange(len(rows), dtype=np.int64)
    wanted = np.repeat(user, np.diff(indptr)) * width + targets
    # -1 becomes the last key of the user before, which no target has.
    shown = user[:, None] * width + rows
    return np.isin(shown, wanted, kind="sort")


def figures_of(hits: NDArray[np.bool_], sizes: NDArray[np.integer]) -> NDArray[np.float32]:
    """FIGURES of each user, shape (users, 4), within 0-1.

    hits: shape (users, n); places beyond LIST_LENGTH do not count. sizes: targets of each user,
    one or more, shape (users,).
    """
    assert np.all(sizes > 0)
    hits = hits[:, :LIST_LENGTH]
    gains = 1 / np.log2(np.arange(2, LIST_LENGTH + 2))
    found = np.zeros(len(hits), np.float64)
    gained = np.zeros(len(hits), np.float64)
    first = np.zeros(len(hits), np.float64)
    # Place by place: the order of summation is the same for every user and every block.
    for place in range(hits.shape[1]):
        hit = hits[:, place]
        found += hit
        gained += hit * gains[place]
        first[hit & (first == 0)] = 1 / (place + 1)
    ideal = np.cumsum(gains)[np.minimum(sizes, LIST_LENGTH) - 1]
    figures = np.empty((len(hits), len(FIGURES)), np.float32)
    figures[:, 0] = found / sizes
    figures[:, 1] = gained / ideal
    figures[:, 2] = hits[:, :HIT_LENGTH].any(axis=1)
    figures[:, 3] = first
    return figures


def means_of(figures: NDArray[np.float32]) -> NDArray[np.float64]:
    """Means over users, shape (columns,); zeros where there are no users."""
    if not len(figures):
        return np.zeros(figures.shape[1])
    means: NDArray[np.float64] = figures.mean(axis=0, dtype=np.float64)
    return means


def intervals_of(
    figures: NDArray[np.float32], *, seed: int, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Limits that hold the mean over users with LEVEL confidence, shape (columns, 2).

    The same seed draws the same users for every array of that length, so a difference of two
    algorithms, user by user, has an interval of its own. Zeros where there are no users.
    """
    users = len(figures)
    if not users:
        return np.zeros((figures.shape[1], 2))
    values = figures.astype(np.float64)
    if users > MAX_RESAMPLED_USERS:
        spread = _NORMAL_QUANTILE * values.std(axis=0) / np.sqrt(users)
        means = values.mean(axis=0)
        return np.stack([means - spread, means + spread], axis=1)
    random = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    for resample in range(resamples):
        drawn = np.bincount(random.integers(0, users, users), minlength=users)
        means[resample] = drawn @ values / users
    tail = (1 - LEVEL) / 2
    limits: NDArray[np.float64] = np.quantile(means, [tail, 1 - tail], axis=0).T
    return limits


def exposure_of(
    shown: NDArray[np.int64],
    *,
    degrees: NDArray[np.int64],
    users: int,
    is_candidate: NDArray[np.bool_],
) -> Exposure:
    """What was shown, from how often each restaurant was.

    shown: places that hold each restaurant, shape (restaurants,). degrees: users who ordered from
    each one before. users: users who ordered at all. is_candidate: what could have been shown.
    """
    places = int(shown.sum())
    candidates = int(np.count_nonzero(is_candidate))
    if not places or not candidates:
        return Exposure(coverage=0.0, novelty=0.0, mean_popularity=0.0)
    known = np.maximum(degrees, 1) / max(users, 1)
    return Exposure(
        coverage=float(np.count_nonzero(shown[is_candidate]) / candidates),
        novelty=float(shown @ -np.log2(np.minimum(known, 1.0))) / places,
        mean_popularity=float(shown @ degrees) / places,
    )
