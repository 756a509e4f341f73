"""Judges the rankings of one algorithm for one list: figures, intervals, segments.

Sees targets, which no algorithm does. Holds four numbers a user, and one block of rankings.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.evaluation.context import ListName
from worker.evaluation.held_out import HeldOut
from worker.ranking import metrics
from worker.ranking.diversity import same_cuisine_pairs
from worker.ranking.matrix import restaurant_degrees, user_degrees
from worker.ranking.scoring import RankedBlock

SEGMENTS: tuple[tuple[str, int, int | None], ...] = (
    ("0", 0, 0),
    ("1-4", 1, 4),
    ("5-19", 5, 19),
    ("20+", 20, None),
)
"""Name, fewest and most orders before the cut."""
DIGITS = 6
DIVERSE_TOP = 10


@dataclass(frozen=True, slots=True)
class Judged:
    """What came out of one list."""

    figures: NDArray[np.float32]
    """metrics.FIGURES of the users that figures are taken over, shape (users, 4)."""
    orders: NDArray[np.int32]
    """Their orders before the cut, shape (users,)."""
    new_figures: NDArray[np.float32]
    """The same of users without one, where these are apart, shape (new users, 4)."""
    exposure: metrics.Exposure
    diversity: float | None
    """Share of the pairs in the first ten that have different cuisines; None without cuisines."""


def judge(
    held_out: HeldOut,
    blocks: Iterator[RankedBlock],
    *,
    list_name: ListName,
    is_candidate: NDArray[np.bool_],
    has_new_users_apart: bool = True,
    cuisine_codes: NDArray[np.int32] | None = None,
    on_users: Callable[[int], None] = lambda done: None,
) -> Judged:
    """Takes the rankings of all asked users, in their order.

    The figures of `discover` are those of users whose targets are new to them. A first order is
    nobody's next one: users without an order before the cut are a segment of their own, unless
    `has_new_users_apart` is false, which leaves none out. cuisine_codes: shape (restaurants,).
    """
    sizes = np.diff(held_out.indptr)
    is_asked = np.ones(len(sizes), np.bool_)
    if list_name == "discover":
        is_asked = held_out.is_new[held_out.indptr[:-1]]
    is_first = held_out.orders == 0 if has_new_users_apart else np.zeros(len(sizes), np.bool_)
    is_next = is_asked & ~is_first
    figures = np.zeros((len(sizes), len(metrics.FIGURES)), np.float32)
    shown = np.zeros(len(held_out.train.restaurant_ids), np.int64)
    alike = 0.0
    done = 0
    for block in blocks:
        assert block.first_user == done, "blocks follow one another"
        stop = done + len(block.rows)
        offsets = held_out.indptr[done : stop + 1]
        rows = block.rows[:, : metrics.LIST_LENGTH]
        hits = metrics.find_hits(
            rows, offsets - offsets[0], held_out.targets[offsets[0] : offsets[-1]]
        )
        figures[done:stop] = metrics.figures_of(hits, sizes[done:stop])
        listed = rows[is_next[done:stop]]
        seen = listed.ravel()
        shown += np.bincount(seen[seen >= 0], minlength=len(shown))
        if cuisine_codes is not None:
            alike += float(same_cuisine_pairs(listed, cuisine_codes, top=DIVERSE_TOP).sum())
        done = stop
        on_users(done)
    assert done == len(sizes), "every user is ranked"
    return Judged(
        figures=figures[is_next],
        orders=held_out.orders[is_next],
        new_figures=figures[is_asked & is_first],
        exposure=metrics.exposure_of(
            shown,
            degrees=restaurant_degrees(held_out.train),
            users=int(np.count_nonzero(user_degrees(held_out.train))),
            is_candidate=is_candidate,
        ),
        diversity=None
        if cuisine_codes is None
        else 1 - alike / max(1, int(np.count_nonzero(is_next))),
    )


def describe(judged: Judged, *, seed: int) -> dict[str, Any]:
    """The figures of a result, their intervals, and the same of each segment of users."""
    parts = {
        name: judged.figures[_is_within(judged.orders, low, high)] for name, low, high in SEGMENTS
    }
    if len(judged.new_figures):
        parts["0"] = judged.new_figures
    return {
        **_named(metrics.means_of(judged.figures)),
        "coverage": round(judged.exposure.coverage, DIGITS),
        "novelty": round(judged.exposure.novelty, DIGITS),
        "diversity": None if judged.diversity is None else round(judged.diversity, DIGITS),
        "users": len(judged.figures),
        "mean_popularity": round(judged.exposure.mean_popularity, DIGITS),
        "intervals": named_intervals(metrics.intervals_of(judged.figures, seed=seed)),
        "segments": [{"orders": name, **_segment(part, seed)} for name, part in parts.items()],
    }


def describe_gain(own: NDArray[np.float32], other: NDArray[np.float32], *, seed: int) -> Any:
    """How far the figures of `own` lie above those of `other`, user by user: mean and limits."""
    gain = own - other
    means, limits = metrics.means_of(gain), metrics.intervals_of(gain, seed=seed)
    return {
        name: {"mean": round(float(mean), DIGITS), "interval": _rounded(interval)}
        for name, mean, interval in zip(metrics.FIGURES, means, limits, strict=True)
    }


def named_intervals(limits: NDArray[np.float64]) -> dict[str, list[float]]:
    return {
        name: _rounded(interval) for name, interval in zip(metrics.FIGURES, limits, strict=True)
    }


def _segment(figures: NDArray[np.float32], seed: int) -> dict[str, Any]:
    return {
        "users": len(figures),
        **_named(metrics.means_of(figures)),
        "intervals": named_intervals(metrics.intervals_of(figures, seed=seed)),
    }


def _is_within(orders: NDArray[np.int32], low: int, high: int | None) -> NDArray[np.bool_]:
    return orders >= low if high is None else (orders >= low) & (orders <= high)


def _named(means: NDArray[np.float64]) -> dict[str, float]:
    return {
        name: round(float(mean), DIGITS) for name, mean in zip(metrics.FIGURES, means, strict=True)
    }


def _rounded(limits: NDArray[np.float64]) -> list[float]:
    return [round(float(limit), DIGITS) for limit in limits]
