"""An evaluation as its caller sees it: child processes one after the other, one document.

Loads no numpy: what computes are the children, and the caller's own memory stays small.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from shared import errors
from shared.errors import TasteMatchError
from shared.settings import Settings
from worker.parent import child_environment
from worker.scratch import scratch_folder

ALGORITHMS = ("sharpened", "popularity", "popularity-city", "own-frequency", "item-graph")
"""The product's own model first. A test keeps them equal to the table that runs them."""
SHOP_ONLY = ("popularity-city", "own-frequency")
VIEWS = ("time", "leave-last-out")
END_SECONDS = 2.0

OnStep = Callable[[str, float], None]
"""Told what runs, and how much of everything is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to evaluate. Shares are of all orders, by count; the rest is the test part."""

    data: Path | None = None
    """A folder of the LightGCN form; None for the database."""
    algorithms: Sequence[str] = ALGORITHMS
    views: Sequence[str] = VIEWS
    """Splits of the database."""
    train_share: float = 0.8
    validation_share: float = 0.1
    max_users: int | None = None
    """Users to judge by in each split, drawn by the seed; all when None."""
    seed: int = 0


def evaluate(settings: Settings, choice: Choice, *, on_step: OnStep) -> dict[str, Any]:
    """The document that `tastematch evaluate --json` prints.

    Raises DatasetError, DatabaseUnavailable, SchemaError, BudgetError, or TasteMatchError where
    nothing can be evaluated.
    """
    with scratch_folder(settings.scratch_dir) as folder:
        common = {"folder": str(folder), "seed": choice.seed}
        reading = {
            **common,
            "step": "database" if choice.data is None else "folder",
            "data": None if choice.data is None else str(choice.data),
            "views": list(choice.views),
            "train_share": choice.train_share,
            "validation_share": choice.validation_share,
            "max_users": choice.max_users,
        }
        names = [
            name
            for name in ALGORITHMS
            if name in choice.algorithms and (choice.data is None or name not in SHOP_ONLY)
        ]
        expected = 1 + len(names) * (len(choice.views) if choice.data is None else 1)
        read = _ask(reading, lambda done: on_step("reading", done / expected))
        splits = [name for name, split in read["splits"].items() if split["judged_users"]]
        results: list[dict[str, Any]] = []
        steps = [(name, split) for name in names for split in splits]
        for number, (name, split) in enumerate(steps, start=1):
            order = {
                **common,
                "step": "algorithm",
                "algorithm": name,
                "split": split,
                "counts": read["counts"],
            }
            label = f"{name}, {split}"
            results += _ask(
                order,
                lambda done, at=number, label=label: on_step(  # type: ignore[misc]
                    label, (at + done) / (len(steps) + 1)
                ),
            )
    return {
        "data": "database" if choice.data is None else str(choice.data),
        "split": next(iter(read["splits"])),
        "seed": choice.seed,
        "counts": read["counts"],
        "skipped": read["skipped"],
        "splits": read["splits"],
        "results": results,
    }


def _ask(order: dict[str, Any], on_progress: Callable[[float], None]) -> Any:
    """Runs one child to its end and returns its answer."""
    on_progress(0.0)
    # A session of its own: Ctrl-C reaches the caller alone, which then ends it in order.
    child = subprocess.Popen(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", "worker.evaluation.child", orjson.dumps(order).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=child_environment(),
    )
    assert child.stdin is not None
    assert child.stdout is not None
    last: dict[str, Any] = {}
    try:
        for line in child.stdout:
            last = orjson.loads(line)
            if last["event"] == "progress":
                on_progress(last["progress"])
        status = child.wait()
    finally:
        child.stdin.close()  # by which it ends, if it has not yet
        child.stdout.close()
        try:
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if last.get("event") == "done":
        return last["answer"]
    if last.get("event") == "error":
        kind = getattr(errors, str(last["kind"]), TasteMatchError)
        error: TasteMatchError = kind(str(last["error"]))
        raise error
    what = order.get("algorithm") or "reading"
    reason = f"signal {-status}" if status < 0 else f"status {status}"
    raise TasteMatchError(f"the process of the evaluation ({what}) ended with {reason}")
