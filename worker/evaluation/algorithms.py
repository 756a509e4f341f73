"""The algorithms that are judged: the product's own model, and the baselines beside it.

An algorithm learns from the interactions before the cut and returns a function that ranks the
users in question for one list, block after block. Nothing here knows the targets.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from worker import memory
from worker.evaluation.completion import (
    PopularLists,
    empty_blocks,
    fill,
    popular_lists,
    ranked,
)
from worker.evaluation.held_out import HeldOut
from worker.ranking.history import order_again
from worker.ranking.item_model import ItemGraph, fit_item_graph
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.popularity import popularity
from worker.ranking.scoring import RankedBlock, score_users

ListName = Literal["for_you", "discover"]
LISTS: tuple[ListName, ...] = ("for_you", "discover")
OWN_MODEL = "sharpened"


@dataclass(frozen=True, slots=True)
class Shop:
    """What a database knows beside the orders."""

    user_cities: NDArray[np.uint16]
    """City code of every user, shape (users,)."""
    restaurant_cities: NDArray[np.uint16]
    """City code of every restaurant, shape (restaurants,)."""
    is_active: NDArray[np.bool_]
    """Which restaurants may be recommended, shape (restaurants,)."""
    catalogue: Path | None = None
    """A JSON line a restaurant, in the order of rows, with the fields of `RestaurantRow`."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an algorithm may use beside the interactions before the cut."""

    users: NDArray[np.int32]
    """Rows of the users to rank, ascending, shape (asked,)."""
    histories: InteractionMatrix
    """Their interactions: row u is user `users[u]`. Blocks count users by these rows."""
    is_candidate: NDArray[np.bool_]
    """Active, and ordered from before the cut, shape (restaurants,)."""
    restaurant_orders: NDArray[np.int64]
    """Orders before the cut, shape (restaurants,)."""
    n: int
    """Length of the rankings."""
    plan: memory.Plan
    folder: Path
    """Scratch for files of its own."""
    seed: int
    shop: Shop | None
    """None for a data set without cities and times: `discover` is its only list."""
    validation: Callable[[], HeldOut | None]
    """Loads the window that parameters may be chosen on: what came right before the cut."""

    @property
    def cities(self) -> NDArray[np.uint16] | None:
        """City codes of the users to rank."""
        return None if self.shop is None else self.shop.user_cities[self.users]


Rank = Callable[[ListName], Iterator[RankedBlock]]
Fit = Callable[[InteractionMatrix, Context], Rank]


@dataclass(frozen=True, slots=True)
class Algorithm:
    fit: Fit
    lists: tuple[ListName, ...]
    is_baseline: bool
    needs_shop: bool
    """Whether it makes no sense without cities and repeats."""


def fit_own_model(matrix: InteractionMatrix, context: Context) -> Rank:
    """The lists as the product publishes them: repeats, discoveries, then the city's popular."""
    graph = _item_graph(matrix, context)
    popular = _popular_in_city(matrix, context)

    def rank(list_name: ListName) -> Iterator[RankedBlock]:
        for block in _scored(graph, context, has_seen=False):
            rows = block.rows
            if list_name == "for_you":
                rows = _join(_repeats(context, block.first_user, len(rows)), rows)
            if context.shop is not None:
                rows = _filled(rows, popular, context, block.first_user, list_name)
            yield ranked(rows, first_user=block.first_user)

    return rank


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
    return _rank_popular(_popular_in_city(matrix, context), context)


def fit_own_frequency(matrix: InteractionMatrix, context: Context) -> Rank:
    """Where the user ordered most, each order worth half after 90 days; then the city's list."""
    popular = _popular_in_city(matrix, context)

    def rank(list_name: ListName) -> Iterator[RankedBlock]:
        for first_user, empty in _empty(context):
            rows = _repeats(context, first_user, len(empty))
            yield ranked(
                _filled(rows, popular, context, first_user, list_name), first_user=first_user
            )

    return rank


ALGORITHMS: dict[str, Algorithm] = {
    # The product's own model is swapped here.
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


def _popular_in_city(matrix: InteractionMatrix, context: Context) -> PopularLists:
    return popular_lists(
        popularity(matrix),
        is_candidate=context.is_candidate,
        restaurant_cities=None if context.shop is None else context.shop.restaurant_cities,
    )


def _rank_popular(popular: PopularLists, context: Context) -> Rank:
    def rank(list_name: ListName) -> Iterator[RankedBlock]:
        for first_user, rows in _empty(context):
            yield ranked(
                _filled(rows, popular, context, first_user, list_name), first_user=first_user
            )

    return rank


def _empty(context: Context) -> Iterator[tuple[int, NDArray[np.int32]]]:
    return empty_blocks(
        context.histories,
        n=context.n,
        user_block=context.plan.user_block,
        block_entries=context.plan.block_entries,
    )


def _filled(
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


def _join(first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.int32]:
    """Two disjoint rankings of the same users behind one another, as long as the first is wide."""
    both = np.concatenate([first, second], axis=1)
    order = np.argsort(both < 0, axis=1, kind="stable")
    return np.take_along_axis(both, order, axis=1)[:, : first.shape[1]]
