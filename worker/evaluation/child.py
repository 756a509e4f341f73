"""The process that reads, or that runs one algorithm: `python -m worker.evaluation.child JSON`.

Each algorithm has a process of its own, so that its seconds and its peak memory are its own. It
speaks JSON lines on stdout (`progress`, then `done` or `error`) and ends when its stdin is closed.
"""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson

from shared.startup import loaded
from shared.errors import TasteMatchError
from shared.logs import configure_logs, get_logger
from shared.peak_memory import peak_rss_mb
from shared.settings import Settings, load_settings
from worker.evaluation import database, held_out, lightgcn, trial
from worker.heap import bound_heap
from worker.inputs import plan_for
from worker.parent import end_with_parent

LIGHTGCN = "lightgcn"
TELL_SECONDS = 0.2

log = get_logger("worker.evaluation")

OnProgress = Callable[[float], None]


def read_folder(order: dict[str, Any], settings: Settings, on_progress: OnProgress) -> Any:
    found = lightgcn.read_folder(Path(order["data"]))
    if not len(found.users):
        raise TasteMatchError("the test file holds no items: nothing can be evaluated")
    described = {"users": len(found.users), "targets": len(found.targets)}
    if order["max_users"] is not None:
        found = held_out.sample_users(found, limit=order["max_users"], seed=order["seed"])
    held_out.save(found, Path(order["folder"]) / LIGHTGCN)
    described["judged_users"] = len(found.users)
    counts = {
        "users": len(found.train.user_ids),
        "restaurants": len(found.train.restaurant_ids),
        "orders": found.train.orders,
    }
    return {"counts": counts, "splits": {LIGHTGCN: described}, "skipped": {}}


def read_database(order: dict[str, Any], settings: Settings, on_progress: OnProgress) -> Any:
    return database.write_splits(
        settings,
        Path(order["folder"]),
        now=datetime.now(UTC),
        wanted=database.Wanted(
            views=tuple(order["views"]),
            train_share=order["train_share"],
            validation_share=order["validation_share"],
            max_users=order["max_users"],
            seed=order["seed"],
        ),
        on_progress=on_progress,
    )


def run_algorithm(order: dict[str, Any], settings: Settings, on_progress: OnProgress) -> Any:
    folder = Path(order["folder"])
    split = str(order["split"])
    found = held_out.load(folder / split)
    scratch = folder / f"{order['algorithm']}-{split}"
    scratch.mkdir()
    context = trial.context_of(
        found,
        shop=None
        if split == LIGHTGCN
        else database.load_shop(folder, cuisine_cap=settings.cuisine_cap),
        plan=plan_for(settings, order["counts"]),
        folder=scratch,
        seed=order["seed"],
        validation=lambda: trial.load_validation(folder / f"{split}-validation"),
    )
    return trial.run_trial(
        order["algorithm"], found, context, split=split, folder=folder, on_progress=on_progress
    )


STEPS = {"folder": read_folder, "database": read_database, "algorithm": run_algorithm}


@click.command()
@click.argument("order")
def main(order: str) -> None:
    loaded()
    bound_heap()
    end_with_parent()
    try:
        settings = load_settings()
        configure_logs(service="worker", level="ERROR")
        wanted = orjson.loads(order)
        answer = STEPS[wanted["step"]](wanted, settings, _progress())
        _tell({"event": "done", "answer": answer, "peak_rss_mb": round(peak_rss_mb(), 1)})
    except TasteMatchError as error:
        _tell({"event": "error", "error": error.message, "kind": type(error).__name__})
        sys.exit(1)
    except MemoryError:
        _tell({"event": "error", "error": "out of memory", "kind": "TasteMatchError"})
        sys.exit(1)
    except Exception as error:
        log.exception("evaluation.crashed")
        reason = f"unexpected {type(error).__name__} in the evaluation; the log says where"
        _tell({"event": "error", "error": reason, "kind": "TasteMatchError"})
        sys.exit(1)


def _progress() -> OnProgress:
    told = 0.0

    def tell(done: float) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= TELL_SECONDS:
            told = now
            _tell({"event": "progress", "progress": round(min(done, 1.0), 4)})

    return tell


def _tell(event: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(event) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
