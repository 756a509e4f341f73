"""The held-out figures that a snapshot carries, by the same arithmetic as the evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from worker import memory
from worker.evaluation.algorithms import ALGORITHMS
from worker.evaluation.context import LISTS, Fit, ListName, Shop
from worker.evaluation.held_out import HeldOut, sample_users, take_users
from worker.evaluation.judgement import DIGITS, judge, named_intervals
from worker.evaluation.trial import context_of
from worker.ranking import metrics

BASELINE = "popularity-city"
MAX_USERS = 2_000
"""Users that a snapshot is judged by: a hit rate of .3 is then known to about .02."""


def held_out_quality(
    held_out: HeldOut,
    *,
    fit: Fit,
    shop: Shop,
    plan: memory.Plan,
    folder: Path,
    seed: int,
    max_users: int = MAX_USERS,
    on_progress: Callable[[float], None] = lambda done: None,
) -> dict[str, Any]:
    """Figures of `for_you` and `discover` with those of city popularity beside them.

    fit: the product's model; it may hand out one that was fitted on `held_out.train` already.
    Ranks at most `max_users` of the users with earlier orders and a target, the same ones for the
    same seed.
    Returns {"users", "max_users", "for_you": {"targets", figures, "intervals", "baseline": {...}},
    "discover": ...}; a list that nothing can be judged by has zero targets and figures of 0.
    """
    known = take_users(held_out, np.flatnonzero(held_out.orders > 0))
    sampled = sample_users(known, limit=max_users, seed=seed)
    context = context_of(sampled, shop=shop, plan=plan, folder=folder, seed=seed)
    ranks = {
        "own": fit(sampled.train, context),
        "baseline": ALGORITHMS[BASELINE].fit(sampled.train, context),
    }
    quality: dict[str, Any] = {"users": len(sampled.users), "max_users": max_users}
    for number, list_name in enumerate(LISTS):
        own, baseline = (
            _figures(sampled, rank(list_name), list_name, context.is_candidate, seed)
            for rank in ranks.values()
        )
        quality[list_name] = {**own, "baseline": {"algorithm": BASELINE, **baseline}}
        on_progress((number + 1) / len(LISTS))
    return quality


def _figures(
    held_out: HeldOut, blocks: Any, list_name: ListName, is_candidate: Any, seed: int
) -> dict[str, Any]:
    judged = judge(held_out, blocks, list_name=list_name, is_candidate=is_candidate)
    means = metrics.means_of(judged.figures)
    return {
        "targets": len(judged.figures),
        **{
            name: round(float(mean), DIGITS)
            for name, mean in zip(metrics.FIGURES, means, strict=True)
        },
        "coverage": round(judged.exposure.coverage, DIGITS),
        "mean_popularity": round(judged.exposure.mean_popularity, DIGITS),
        "intervals": named_intervals(metrics.intervals_of(judged.figures, seed=seed)),
    }
