"""One algorithm on one split: learn, rank, be judged; with its seconds and its memory."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.peak_memory import peak_rss_mb
from worker import memory
from worker.evaluation import held_out as files
from worker.evaluation.algorithms import ALGORITHMS, OWN_MODEL
from worker.evaluation.context import LISTS, Context, ListName, Shop
from worker.evaluation.held_out import HeldOut
from worker.evaluation.judgement import describe, describe_gain, judge
from worker.ranking import metrics
from worker.ranking.scoring import RankedBlock


def context_of(
    held_out: HeldOut,
    *,
    shop: Shop | None,
    plan: memory.Plan,
    folder: Path,
    seed: int,
    validation: Callable[[], HeldOut | None] = lambda: None,
) -> Context:
    """What an algorithm may use, without the targets."""
    is_candidate = held_out.restaurant_orders > 0
    if shop is not None:
        is_candidate &= shop.is_active
    return Context(
        users=held_out.users,
        histories=held_out.histories(),
        is_candidate=is_candidate,
        restaurant_orders=held_out.restaurant_orders,
        n=metrics.LIST_LENGTH,
        plan=plan,
        folder=folder,
        seed=seed,
        shop=shop,
        validation=validation,
    )


def run_trial(
    name: str,
    held_out: HeldOut,
    context: Context,
    *,
    split: str,
    folder: Path,
    on_progress: Callable[[float], None],
) -> list[dict[str, Any]]:
    """A result for each list that the algorithm has.

    The figures of the product's own model stay in the folder, so that each baseline judged after
    it is told how far it lies behind.
    """
    algorithm = ALGORITHMS[name]
    started = time.perf_counter()
    rank = algorithm.fit(held_out.train, context)
    fit_seconds = time.perf_counter() - started
    # A data set without repeats and cities has one list, of what is new.
    lists = [("discover", None)] if context.shop is None else [(one, one) for one in LISTS]
    results = []
    for number, (list_name, label) in enumerate(lists):
        if list_name not in algorithm.lists:
            continue
        watch = _Stopwatch()
        judged = judge(
            held_out,
            watch.timed(rank(list_name)),
            list_name=list_name,
            is_candidate=context.is_candidate,
            has_new_users_apart=context.shop is not None,
            cuisine_codes=None if context.shop is None else context.shop.facts.cuisine_codes,
            on_users=lambda done, at=number: on_progress(  # type: ignore[misc]
                (at + done / max(1, len(held_out.users))) / len(lists)
            ),
        )
        peak_mb = peak_rss_mb()
        described = describe(judged, seed=context.seed)
        own = _own_figures(folder, split, list_name)
        if algorithm.is_baseline and own.exists():
            described["behind_own_model"] = describe_gain(
                _load(own), judged.figures, seed=context.seed
            )
        elif not algorithm.is_baseline:
            np.save(own, judged.figures, allow_pickle=False)
        results.append(
            {
                "algorithm": name,
                "baseline": algorithm.is_baseline,
                "list": label,
                "split": split,
                **described,
                "seconds": round(fit_seconds + watch.seconds, 3),
                "fit_seconds": round(fit_seconds, 3),
                "peak_rss_mb": round(peak_mb, 1),
            }
        )
    return results


def load_validation(folder: Path) -> HeldOut | None:
    """The window before the cut, where the split has one."""
    return files.load(folder) if folder.exists() else None


class _Stopwatch:
    """Counts what a generator takes, not what is done with what it yields."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, blocks: Iterator[RankedBlock]) -> Iterator[RankedBlock]:
        while True:
            started = time.perf_counter()
            block = next(blocks, None)
            self.seconds += time.perf_counter() - started
            if block is None:
                return
            yield block


def _own_figures(folder: Path, split: str, list_name: ListName) -> Path:
    return folder / f"{OWN_MODEL}-{split}-{list_name}.npy"


def _load(path: Path) -> NDArray[np.float32]:
    figures: NDArray[np.float32] = np.load(path, allow_pickle=False)
    return figures
