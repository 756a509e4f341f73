"""The product's own model, judged as it is published: the same fit, blend and filling up."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.evaluation.completion import filled, popular_in_city, ranked
from worker.evaluation.context import Context, ListName, Rank, Shop
from worker.evaluation.held_out import HeldOut, sample_users, take_users
from worker.executors import Workers
from worker.memory import Plan
from worker.model import MAX_FITTED_USERS, fit_filter, fit_model, fit_weights
from worker.ranker import load_ranker, rank_users
from worker.ranking.array_files import save_matrix
from worker.ranking.blend_fit import FittedBlend
from worker.ranking.blend_weights import DEFAULTS, BlendWeights
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.scoring import RankedBlock, cut_users, score_users
from worker.ranking.surroundings import RestaurantFacts

LIST_LENGTH = 200
"""As long as published heads: the cap on one cuisine reaches beyond the page."""


def fit_own_model(matrix: InteractionMatrix, context: Context) -> Rank:
    """Weights of the blend are chosen on the validation window, where there is one."""
    with ThreadPoolExecutor(context.plan.threads) as executor:
        workers = Workers(executor, context.plan.threads)
        if context.shop is None:
            return _fit_filter_alone(matrix, context, workers)
        weights = DEFAULTS
        window = context.validation()
        if window is not None:
            before = fit_before(window, context.shop, context.plan, context.folder, workers)
            chosen = sample_users(discoverers(window), limit=MAX_FITTED_USERS, seed=context.seed)
            weights = fit_weights_on(chosen, context.shop, before).weights
        folder = _fit(
            matrix,
            context.folder,
            facts=_candidates(context.shop.facts, context.is_candidate),
            weights=replace(weights, cuisine_cap=context.shop.cuisine_cap),
            plan=context.plan,
            workers=workers,
        )
    return rank_with(folder, matrix, context)


def fit_before(held_out: HeldOut, shop: Shop, plan: Plan, folder: Path, workers: Workers) -> Path:
    """A model, with default weights, of what came before a cut: its folder, a new one inside."""
    return _fit(
        held_out.train,
        folder,
        facts=_candidates(shop.facts, held_out.restaurant_orders > 0),
        weights=DEFAULTS,
        plan=plan,
        workers=workers,
    )


def discoverers(held_out: HeldOut) -> HeldOut:
    """Those of the asked users who have a history and a target that is new to them."""
    first = held_out.indptr[:-1]
    return take_users(held_out, np.flatnonzero((held_out.orders > 0) & held_out.is_new[first]))


def fit_weights_on(chosen: HeldOut, shop: Shop, model_folder: Path) -> FittedBlend:
    """The weights that fit the targets of `discoverers` best, at most MAX_FITTED_USERS of them.

    model_folder: a model of the orders before these targets.
    """
    return fit_weights(
        model_folder,
        chosen.histories(),
        targets=chosen.targets[chosen.indptr[:-1]],
        user_cities=shop.user_cities[chosen.users],
    )


def rank_with(folder: Path, matrix: InteractionMatrix, context: Context) -> Rank:
    """The lists of a fitted model, filled up as the API does."""
    popular = popular_in_city(matrix, context)
    cities = context.cities
    assert cities is not None

    def rank(list_name: ListName) -> Iterator[RankedBlock]:
        ranker = load_ranker(folder)
        for start, stop in cut_users(
            context.histories,
            ranker.graph,
            user_block=context.plan.user_block,
            block_entries=context.plan.block_entries,
        ):
            for_you, discover, _ = rank_users(
                ranker, context.histories, cities[start:stop], start=start, n=LIST_LENGTH
            )
            block = for_you if list_name == "for_you" else discover
            rows = block.rows[:, : context.n]
            rows = filled(rows, popular, context, start, list_name)
            yield ranked(rows, first_user=start)

    return rank


def _fit_filter_alone(matrix: InteractionMatrix, context: Context, workers: Workers) -> Rank:
    folder = _new_folder(context.folder)
    graph = fit_filter(
        save_matrix(matrix, folder),
        folder,
        is_candidate=context.is_candidate,
        plan=context.plan,
        workers=workers,
    )

    def rank(list_name: ListName) -> Iterator[RankedBlock]:
        with ThreadPoolExecutor(context.plan.threads) as executor:
            yield from score_users(
                context.histories,
                graph,
                n=context.n,
                has_seen=list_name == "for_you",
                user_block=context.plan.user_block,
                block_entries=context.plan.block_entries,
                executor=executor,
                ahead=2 * context.plan.threads,
            )

    return rank


def _fit(
    matrix: InteractionMatrix,
    folder: Path,
    *,
    facts: RestaurantFacts,
    weights: BlendWeights,
    plan: Plan,
    workers: Workers,
) -> Path:
    """Fits in a new folder inside `folder`, and returns it."""
    model = _new_folder(folder)
    fit_model(
        save_matrix(matrix, model),
        model,
        facts=facts,
        weights=weights,
        plan=plan,
        workers=workers,
    )
    return model


def _new_folder(home: Path) -> Path:
    # What is mapped is known by its folder: no two models may ever lie in one.
    return Path(tempfile.mkdtemp(prefix="model-", dir=home))


def _candidates(facts: RestaurantFacts, is_candidate: NDArray[np.bool_]) -> RestaurantFacts:
    return replace(facts, is_candidate=facts.is_candidate & is_candidate)
