"""What a user sees: `order_again`, `discover` and `for_you`, out of several kinds of evidence.

`order_again` ranks the user's own restaurants:

    repeat(u, i) = sum over the user's orders there of 2^(-age / 90 days)

`discover` ranks restaurants the user never ordered from (worker/ranking/evidence.py gathers them)
by the product of

    (guests_j + s)^p    (km_uj + d0)^-d    (points_uj + e)^(c n / (n + m))    (lift_uj + f)^q

guests: recent guests of j, half of one counting after 30 days; km: to the nearest of the user's
foremost own restaurants; points: what the history points to, of the user's best; n: restaurants
the user ordered from, so that a short history says little; lift: how much more of the user's
history than of everyone's is of j's cuisine.

`for_you` alternates: of each ten, so many are the best repeats and the rest the best discoveries.
docs/decisions/0010 has the figures that this form was chosen by.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from worker.ranking import sort_keys
from worker.ranking.blend_weights import BlendWeights
from worker.ranking.diversity import LOOK_AHEAD, spread_order
from worker.ranking.evidence import Evidence, evidence_blocks
from worker.ranking.history import History, order_again
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.ragged import sizes_of, spans
from worker.ranking.scoring import RankedBlock, SparseRows
from worker.ranking.surroundings import Surroundings

TEN = 10


def blend_block(
    matrix: InteractionMatrix,
    collaborative: SparseRows,
    *,
    first_user: int,
    user_cities: NDArray[np.uint16],
    surroundings: Surroundings,
    weights: BlendWeights,
    n: int,
) -> tuple[RankedBlock, RankedBlock, History]:
    """`for_you`, `discover` and `order_again` of the users from row `first_user` on.

    The n best of each of the former, all of the latter.

    collaborative: what each history points to, sparse (users, restaurants) without duplicates,
    in any order; values of zero and below say nothing, and own restaurants have no others.
    user_cities: city codes, shape (users,). Users without an order get empty lists: they have no
    evidence of their own. Scores of `discover` are the product above, those of `for_you` one over
    the place. A user's lists depend on that user alone, to the bit.
    """
    users = len(collaborative.indptr) - 1
    depth = max(n, LOOK_AHEAD)
    discover = np.full((users, depth), sort_keys.NOTHING)
    history = order_again(matrix, first_user=first_user, users=users)
    for start, stop, evidence in evidence_blocks(
        matrix,
        collaborative,
        history=history,
        user_cities=user_cities,
        surroundings=surroundings,
    ):
        _rank(scores(evidence, weights), evidence, discover[start:stop])
    is_discovered = sort_keys.is_positive(discover)
    is_discovered &= (sizes_of(history.indptr) > 0)[:, np.newaxis]
    discover[~is_discovered] = sort_keys.NOTHING
    facts = surroundings.facts
    lists, order = spread_order(
        sort_keys.rows_of(discover), facts.cuisine_codes, cap=weights.cuisine_cap
    )
    discover[lists, : order.shape[1]] = discover[lists[:, np.newaxis], order]
    discover = discover[:, :n]
    rows = sort_keys.rows_of(discover)
    lengths = (rows >= 0).sum(axis=1, dtype=np.int32)
    again = history.only(facts.is_candidate)
    for_you = _alternate(again, rows, lengths, weights.repeats_in_ten)
    discoveries = RankedBlock(
        first_user=first_user, rows=rows, scores=sort_keys.scores_of(discover), lengths=lengths
    )
    return for_you, discoveries, again


def scores(evidence: Evidence, weights: BlendWeights) -> NDArray[np.float32]:
    """Score of every candidate, above zero, shape (entries,)."""
    trust = weights.points * evidence.own_counts / (evidence.own_counts + weights.points_half)
    total: NDArray[np.float32] = np.log(evidence.points + np.float32(weights.points_floor))
    total *= trust.astype(np.float32).take(evidence.users)
    part = np.log(evidence.km + np.float32(weights.near_km))
    part *= np.float32(weights.distance)
    total -= part
    part = np.log(evidence.guests.take(evidence.rows) + np.float32(weights.guests_floor))
    part *= np.float32(weights.guests)
    total += part
    lifts = np.log(evidence.lifts + np.float32(weights.cuisine_floor))
    lifts *= np.float32(weights.cuisine)
    total += lifts.reshape(-1).take(evidence.lift_places)
    np.exp(total, out=total)
    return total


def _rank(totals: NDArray[np.float32], evidence: Evidence, chosen: NDArray[np.uint64]) -> None:
    """Writes each user's best keys to their row of `chosen`, at most MAX_USERS of them."""
    users, n = chosen.shape
    keys = sort_keys.pack_grouped(evidence.users, totals, evidence.rows)
    keys.sort()
    starts = sort_keys.group_starts(keys, users)
    sizes = np.minimum(sizes_of(starts), n)
    is_ranked = np.arange(n) < sizes[:, np.newaxis]
    chosen[is_ranked] = sort_keys.ungrouped(keys.take(spans(starts[:-1], sizes)))


def _alternate(
    again: History,
    discover: NDArray[np.int32],
    discoveries: NDArray[np.int32],
    repeats_in_ten: int,
) -> RankedBlock:
    """Repeats and discoveries in one list; whichever runs out leaves its places to the other."""
    users, n = discover.shape
    repeats = np.minimum(sizes_of(again.indptr), n)
    rows = np.full((users, n), -1, np.int32)
    user = np.repeat(np.arange(users), repeats)
    place = spans(np.zeros(users, np.int64), repeats)
    row = again.rows[spans(again.indptr[:-1], repeats)]
    place += np.minimum((TEN - repeats_in_ten) * (place // repeats_in_ten), discoveries[user])
    is_shown = place < n
    rows[user[is_shown], place[is_shown]] = row[is_shown]
    places, before, falling = _tens(n, repeats_in_ten)
    places = places + np.minimum(before, repeats[:, np.newaxis])
    is_shown = (places < n) & (discover >= 0)
    places += n * np.arange(users)[:, np.newaxis]
    rows.reshape(-1)[places[is_shown]] = discover[is_shown]
    lengths = np.minimum(repeats + discoveries, n).astype(np.int32)
    return RankedBlock(
        first_user=again.first_user,
        rows=rows,
        scores=falling * (rows >= 0),
        lengths=lengths,
    )


@lru_cache(maxsize=8)
def _tens(
    n: int, repeats_in_ten: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The first n places, how many repeats stand before each discovery, one over the place."""
    places = np.arange(n)
    others = TEN - repeats_in_ten
    before = repeats_in_ten * (places // others + 1) if others else np.full(n, n)
    return places, before, (1 / (places + 1)).astype(np.float32)
