"""How well a run would have ranked the newest orders, and the weights of the blend that do it best.

A sample of users stands for all. Their newest tenth of the orders is held out; a model of what came
before ranks the users who ordered again, and each one's next order is the target. One half of these
users chooses the weights, the other half judges them: no target does both. Where there are too few
to choose by, the weights are the defaults and everybody judges. Who is in which half follows from
the hash of the id, so that snapshots of one shop are judged by much the same users.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from shared.settings import Settings
from worker.evaluation.context import LISTS, Shop
from worker.evaluation.held_out import HeldOut, take_users
from worker.evaluation.judgement import DIGITS
from worker.evaluation.own_model import discoverers, fit_before, fit_weights_on, rank_with
from worker.evaluation.quality import MAX_USERS, held_out_quality
from worker.evaluation.splits import cut, hold_out_next
from worker.executors import Workers
from worker.extract import UserColumns
from worker.inputs import plan_of
from worker.memory import Plan
from worker.model import MAX_FITTED_USERS, release_models
from worker.order_log import OrderLog
from worker.order_sample import OrderSample
from worker.ranker import replace_weights
from worker.ranking.blend_fit import MIN_TARGETS, FittedBlend, Trial
from worker.ranking.blend_weights import DEFAULTS, BlendWeights
from worker.ranking.id_hash import hash_ids
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.surroundings import RestaurantFacts

LEARNT_SHARE = 0.9
MAX_K = 100
MAX_RANK = 64
"""Smaller than a run's own: the sample has fewer orders, and its model serves nobody."""
MAX_DENSE_ENTRIES = 1 << 29
"""Pairs of restaurants up to which patterns are worth their seconds; the plain graph beyond."""

_SALT = 2
_SEED = 0
_NOTHING = FittedBlend(weights=DEFAULTS, targets=0, trials=())


@dataclass(frozen=True, slots=True)
class Measured:
    quality: dict[str, Any]
    """As the manifest holds it."""
    weights: BlendWeights
    trials: dict[str, Any]
    """What the weights were chosen by."""


def measure_quality(
    sample: OrderSample,
    users: UserColumns,
    facts: RestaurantFacts,
    *,
    settings: Settings,
    folder: Path,
    workers: Workers,
    on_progress: Callable[[float], None] = lambda done: None,
) -> Measured:
    """Cuts the sampled orders, fits, chooses, judges. Needs no more memory than the run itself.

    users, facts: of all that the sample was drawn from. folder: scratch, gone afterwards.
    """
    folder.mkdir()
    shop = Shop(user_cities=users.cities[sample.has(users.ids)], facts=facts)
    try:
        return _measure(
            sample.log, shop, settings, folder, workers=workers, on_progress=on_progress
        )
    finally:
        release_models()
        shutil.rmtree(folder, ignore_errors=True)


def _measure(
    log: OrderLog,
    shop: Shop,
    settings: Settings,
    folder: Path,
    *,
    workers: Workers,
    on_progress: Callable[[float], None],
) -> Measured:
    held_out, cut_at = _hold_out(log, shop)
    quality: dict[str, Any] = {"sampled_orders": log.orders, "cut_at": _instant(cut_at)}
    if not len(held_out.users):
        empty: dict[str, Any] = {list_name: {"targets": 0} for list_name in LISTS}
        return _described({**quality, "users": 0, **empty}, _NOTHING, settings.cuisine_cap)
    choosing, judging = _halves(held_out)
    plan = _plan(settings, held_out.train)
    quality["filter"] = {"k": plan.k, "rank": plan.rank}
    model = fit_before(held_out, shop, plan, folder, workers)
    on_progress(0.6)
    fitted = fit_weights_on(choosing, shop, model)
    weights = replace(fitted.weights, cuisine_cap=settings.cuisine_cap)
    replace_weights(weights, model)
    on_progress(0.8)
    judged = held_out_quality(
        judging,
        fit=lambda matrix, context: rank_with(model, matrix, context),
        shop=shop,
        plan=plan,
        folder=folder,
        seed=_SEED,
        on_progress=lambda done: on_progress(0.8 + 0.2 * done),
    )
    del judged["max_users"]
    return _described(quality | judged, fitted, settings.cuisine_cap)


def _plan(settings: Settings, matrix: InteractionMatrix) -> Plan:
    plan = plan_of(settings, matrix)
    restaurants = len(matrix.restaurant_ids)
    rank = min(plan.rank, MAX_RANK) if restaurants**2 <= MAX_DENSE_ENTRIES else 0
    return replace(plan, k=min(plan.k, MAX_K), rank=rank)


def _hold_out(log: OrderLog, shop: Shop) -> tuple[HeldOut, int | None]:
    """The users with earlier orders and a target, and the second of the cut."""
    start = cut(log, train_share=LEARNT_SHARE, validation_share=0).test_from
    held_out, _ = hold_out_next(log, is_active=shop.is_active, start=start)
    known = take_users(held_out, np.flatnonzero(held_out.orders > 0))
    return known, start if log.orders else None


def _halves(held_out: HeldOut) -> tuple[HeldOut, HeldOut]:
    """(those who choose the weights, those who judge), at most as many as is worth the time."""
    hashes = _hashes(held_out)
    is_choosing = hashes & np.uint64(1) == 0
    choosing = discoverers(take_users(held_out, np.flatnonzero(is_choosing)))
    if len(choosing.users) < MIN_TARGETS:
        return choosing, _some(held_out, MAX_USERS)
    judging = take_users(held_out, np.flatnonzero(~is_choosing))
    return _some(choosing, MAX_FITTED_USERS), _some(judging, MAX_USERS)


def _some(held_out: HeldOut, limit: int) -> HeldOut:
    return take_users(held_out, np.sort(np.argsort(_hashes(held_out), kind="stable")[:limit]))


def _hashes(held_out: HeldOut) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return hash_ids(held_out.train.user_ids[held_out.users], salt=_SALT)


def _described(quality: dict[str, Any], fitted: FittedBlend, cuisine_cap: int) -> Measured:
    trials: dict[str, Any] = {"targets": fitted.targets, "tried": len(fitted.trials)}
    if fitted.trials:
        chosen = next(trial for trial in fitted.trials if trial.weights == fitted.weights)
        trials |= {"defaults": _figures(fitted.trials[0]), "chosen": _figures(chosen)}
    weights = replace(fitted.weights, cuisine_cap=cuisine_cap)
    return Measured(quality=quality, weights=weights, trials=trials)


def _figures(trial: Trial) -> dict[str, float]:
    return {
        "ndcg_at_20": round(trial.ndcg_at_20, DIGITS),
        "hit_rate_at_10": round(trial.hit_rate_at_10, DIGITS),
    }


def _instant(seconds: int | None) -> str | None:
    """RFC 3339; None where no order gives a cut."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
