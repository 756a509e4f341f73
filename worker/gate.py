"""The gate before a new snapshot: what fell so far below the active one that a person should look.

A broken import or an emptied table makes a snapshot that is whole and useless. Comparing a few
figures of two manifests finds it before anyone is served from it.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from shared.errors import SnapshotDamaged, SnapshotNotFound, SnapshotUnsupported
from shared.snapshot.manifest import Manifest
from shared.snapshot.store import SnapshotReader

LISTS = ("for_you", "discover")
NOISY_LISTS = ("discover",)
"""Few next orders are discoveries, and few of those are found: chance moves their figure by more
than a drop worth a halt."""
FIGURE = "ndcg_at_20"
MIN_TARGETS = 200
"""Held-out figures of fewer are too uncertain to be compared."""
COUNTS = {
    "users_with_personal_lists": "users with personal lists",
    "users": "users",
    "restaurants": "restaurants",
}
_MAX_DECIMALS = 4


def judge_against_active(manifest: Manifest, store: SnapshotReader, *, max_drop: float) -> Manifest:
    """The manifest with `held_because` filled. Raises StoreUnavailable."""
    reasons = reasons_to_hold(manifest, _active(store), max_drop=max_drop)
    return replace(manifest, held_because=reasons)


def reasons_to_hold(new: Manifest, active: Manifest | None, *, max_drop: float) -> list[str]:
    """Why the new snapshot should not be served yet, one line each; empty when it may.

    max_drop: share of the active snapshot's figure that may be lost, 0 to 1. What a manifest does
    not state, or states of too few held-out targets, is not compared; nor is anything without an
    active snapshot. Figures of `discover` whose intervals overlap may differ by chance alone.
    """
    if active is None:
        return []
    return [
        f"{name} fell from {_shown(before)} to {_shown(after)} {_percents(drop, max_drop)}"
        for name, before, after in _figures(new, active)
        if before > 0 and (drop := (before - after) / before) > max_drop
    ]


def _active(store: SnapshotReader) -> Manifest | None:
    """None where there is nothing to compare with, or nothing that can be read."""
    try:
        version = store.pointer().version
        return None if version is None else store.manifest(version)
    except (SnapshotDamaged, SnapshotNotFound, SnapshotUnsupported):
        return None


def _figures(new: Manifest, active: Manifest) -> Iterator[tuple[str, float, float]]:
    """(name, before, after) of all that both manifests state."""
    manifests = (active, new)
    for list_name in LISTS:
        before, after = (_quality(manifest, list_name) for manifest in manifests)
        if before is None or after is None:
            continue
        if list_name not in NOISY_LISTS or not _overlap(manifests, list_name):
            yield f"held-out NDCG@20 of {list_name}", before, after
    for key, name in COUNTS.items():
        before, after = (_number(manifest.counts, key) for manifest in manifests)
        if before is not None and after is not None:
            yield name, before, after


def _quality(manifest: Manifest, list_name: str) -> float | None:
    """The figure, where it rests on enough. Manifests that count no targets count judged users."""
    found = manifest.quality.get(list_name)
    if not isinstance(found, dict):
        return None
    targets = _number(found, "targets" if "targets" in found else "users")
    return _number(found, FIGURE) if targets is not None and targets >= MIN_TARGETS else None


def _overlap(manifests: tuple[Manifest, Manifest], list_name: str) -> bool:
    """Whether both figures have an interval, and share a part of it."""
    lows: list[float] = []
    highs: list[float] = []
    for manifest in manifests:
        intervals = manifest.quality[list_name].get("intervals")
        interval = intervals.get(FIGURE) if isinstance(intervals, dict) else None
        if not isinstance(interval, list) or len(interval) != 2:
            return False
        if not all(isinstance(limit, int | float) for limit in interval):
            return False
        lows.append(interval[0])
        highs.append(interval[1])
    return max(lows) <= min(highs)


def _number(figures: dict[str, Any], key: str) -> float | None:
    """A manifest may come from another release: only what is a number is compared."""
    value = figures.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None


def _shown(figure: float) -> str:
    return f"{figure:,}" if isinstance(figure, int) else f"{figure:.4f}"


def _percents(drop: float, max_drop: float) -> str:
    """`(98 % > 20 %)`, with as many decimals as tell the two apart."""
    for decimals in range(_MAX_DECIMALS + 1):
        fell, allowed = (f"{100 * share:.{decimals}f}" for share in (drop, max_drop))
        if fell != allowed and float(allowed) == round(100 * max_drop, _MAX_DECIMALS):
            break
    return f"({fell} % > {allowed} %)"
