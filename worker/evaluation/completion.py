"""Fills short rankings up with what is popular: in the user's city first, then everywhere.

The API completes the lists of a snapshot in the same way, so a judged list is the one a user sees.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.evaluation.context import Context, ListName
from worker.ranking import popularity
from worker.ranking.blocks import cut_blocks
from worker.ranking.matrix import InteractionMatrix, user_degrees
from worker.ranking.scoring import RankedBlock


@dataclass(frozen=True, slots=True)
class PopularLists:
    """All candidates by popularity, and those of each city code."""

    everywhere: NDArray[np.int32]
    by_city: dict[int, NDArray[np.int32]]
    restaurants: int


def popular_lists(
    scores: NDArray[np.float32],
    *,
    is_candidate: NDArray[np.bool_],
    restaurant_cities: NDArray[np.integer] | None = None,
) -> PopularLists:
    """scores, is_candidate, restaurant_cities: shape (restaurants,). Without cities, none."""
    by_city: dict[int, NDArray[np.int32]] = {}
    if restaurant_cities is not None:
        by_city = popularity.rank_by_city(scores, restaurant_cities, is_candidate=is_candidate)
    return PopularLists(
        everywhere=popularity.rank(scores, is_candidate=is_candidate),
        by_city=by_city,
        restaurants=len(scores),
    )


def empty_blocks(
    histories: InteractionMatrix, *, n: int, user_block: int, block_entries: int
) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Yields (first user, rows of shape (users, n), all -1): rankings to be filled."""
    for start, stop in cut_blocks(
        user_degrees(histories), max_rows=user_block, max_entries=block_entries
    ):
        yield start, np.full((stop - start, n), -1, np.int32)


def fill(
    rows: NDArray[np.int32],
    popular: PopularLists,
    *,
    first_user: int,
    histories: InteractionMatrix,
    cities: NDArray[np.integer] | None,
    is_own_hidden: bool,
) -> NDArray[np.int32]:
    """Writes popular rows into the free places behind each ranking, none of them twice.

    rows: shape (users, n), of the users from row `first_user` of the histories on, -1 behind a
    ranking's end. cities: of all users of the histories. Returns `rows`.
    """
    n = rows.shape[1]
    is_taken = np.zeros(popular.restaurants, np.bool_)
    lengths = np.count_nonzero(rows >= 0, axis=1).tolist()
    for number, length in enumerate(lengths):
        if length == n:
            continue
        user = first_user + number
        own = histories.restaurants[histories.indptr[user] : histories.indptr[user + 1]]
        hidden = own if is_own_hidden else own[:0]
        ranking = rows[number]
        is_taken[hidden] = True
        is_taken[ranking[:length]] = True
        lists = [popular.everywhere]
        if cities is not None and (near := popular.by_city.get(int(cities[user]))) is not None:
            lists.insert(0, near)
        filled = length
        for listed in lists:
            part = listed[: n + len(hidden) + filled]
            found = part[~is_taken[part]][: n - filled]
            ranking[filled : filled + len(found)] = found
            is_taken[found] = True
            filled += len(found)
        is_taken[hidden] = False
        is_taken[ranking[:filled]] = False
    return rows


def ranked(rows: NDArray[np.int32], *, first_user: int) -> RankedBlock:
    """Rankings that have an order but no scores: the inverse of the place stands for them."""
    is_filled = rows >= 0
    places = np.arange(1, rows.shape[1] + 1, dtype=np.float32)
    return RankedBlock(
        first_user=first_user,
        rows=rows,
        scores=np.where(is_filled, 1 / places, 0).astype(np.float32),
        lengths=np.count_nonzero(is_filled, axis=1).astype(np.int32),
    )


def popular_in_city(matrix: InteractionMatrix, context: Context) -> PopularLists:
    return popular_lists(
        popularity.popularity(matrix),
        is_candidate=context.is_candidate,
        restaurant_cities=None if context.shop is None else context.shop.restaurant_cities,
    )


def filled(
    rows: NDArray[np.int32],
    popular: PopularLists,
    context: Context,
    first_user: int,
    list_name: ListName,
) -> NDArray[np.int32]:
    return fill(
        rows,
        popular,
        first_user=first_user,
        histories=context.histories,
        cities=context.cities,
        is_own_hidden=list_name == "discover",
    )
