"""The algorithms that are judged: the product's own model, and the baselines beside it.

An algorithm learns from the interactions before the cut and returns a function that ranks the
users in question for one list, block after block. Nothing here knows the targets.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.evaluation.completion import (
    PopularLists,
    empty_blocks,
    filled,
    popular_in_city,
    popular_lists,
    ranked,
)
from worker.evaluation.context import LISTS, Context, Fit, ListName, Rank
from worker.evaluation.own_model import fit_own_model
from worker.ranking.history import order_again
from worker.ranking.item_model import ItemGraph, fit_item_graph
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.scoring import RankedBlock, score_users

OWN_MODEL = "sharpened"


@dataclass(frozen=True, slots=True)
class Algorithm:
    fit: Fit
    lists: tuple[ListName, ...]
    is_baseline: bool
    needs_shop: bool
    """Whether it makes no sense without cities and repeats."""


def fit_item_graph_alone(matrix: InteractionMatrix, context: Context) -> Rank:
    """Which restaurants share guests, and nothing else; in `for_you` own ones may come back."""
    graph = _item_graph(matrix, context)
    return lambda list_name: _scored(graph, context, has_seen=list_name == "for_you")


def fit_popularity(matrix: InteractionMatrix, context: Context) -> Rank:
    """The same list for everybody: the most orders of all time."""
    scores = context.restaurant_orders.astype(np.float32)
    return _rank_popular(popular_lists(scores, is_candidate=context.is_candidate), context)


def fit_popularity_in_city(matrix: InteractionMatrix, context: Context) -> Rank:
    """The orders of the user's city, each worth half after 90 days; everywhere behind them."""
    return _rank_popular(popular_in_city(matrix, context), context)


def fit_own_frequency(matrix: InteractionMatrix, context: Context) -> Rank:
    """Where the user ordered most, each order worth half after 90 days; then the city's list."""
    popular = popular_in_city(matrix, context)

    def rank(list_name: ListName) -> Iterator[RankedBlock]:
        for first_user, empty in _empty(context):
            rows = _repeats(context, first_user, len(empty))
            yield ranked(
                filled(rows, popular, context, first_user, list_name), first_user=first_user
            )

    return rank


ALGORITHMS: dict[str, Algorithm] = {
    OWN_MODEL: Algorithm(fit_own_model, LISTS, is_baseline=False, needs_shop=False),
    "popularity": Algorithm(fit_popularity, LISTS, is_baseline=True, needs_shop=False),
    "popularity-city": Algorithm(fit_popularity_in_city, LISTS, is_baseline=True, needs_shop=True),
    # Among restaurants that are new to the user an own history ranks nothing.
    "own-frequency": Algorithm(fit_own_frequency, ("for_you",), is_baseline=True, needs_shop=True),
    "item-graph": Algorithm(fit_item_graph_alone, LISTS, is_baseline=True, needs_shop=False),
}


def _item_graph(matrix: InteractionMatrix, context: Context) -> ItemGraph:
    return fit_item_graph(
        matrix,
        k=context.plan.k,
        item_block=context.plan.item_block,
        block_entries=context.plan.block_entries,
        is_candidate=context.is_candidate,
    )


def _scored(graph: ItemGraph, context: Context, *, has_seen: bool) -> Iterator[RankedBlock]:
    return score_users(
        context.histories,
        graph,
        n=context.n,
        has_seen=has_seen,
        user_block=context.plan.user_block,
        block_entries=context.plan.block_entries,
    )


def _rank_popular(popular: PopularLists, context: Context) -> Rank:
    def rank(list_name: ListName) -> Iterator[RankedBlock]:
        for first_user, rows in _empty(context):
            yield ranked(
                filled(rows, popular, context, first_user, list_name), first_user=first_user
            )

    return rank


def _empty(context: Context) -> Iterator[tuple[int, NDArray[np.int32]]]:
    return empty_blocks(
        context.histories,
        n=context.n,
        user_block=context.plan.user_block,
        block_entries=context.plan.block_entries,
    )


def _repeats(context: Context, first_user: int, users: int) -> NDArray[np.int32]:
    """Each user's own restaurants, best first, shape (users, n), -1 behind the last."""
    history = order_again(
        context.histories, first_user=first_user, users=users, is_candidate=context.is_candidate
    )
    lengths = np.diff(history.indptr)
    places = np.arange(len(history.rows)) - np.repeat(history.indptr[:-1], lengths)
    is_shown = places < context.n
    rows = np.full((users, context.n), -1, np.int32)
    user = np.repeat(np.arange(users), lengths)
    rows[user[is_shown], places[is_shown]] = history.rows[is_shown]
    return rows
