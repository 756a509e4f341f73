"""One precompute, stage after stage, top to bottom: the only control flow of the pipeline.

Run as a child process (`python -m worker.precompute`), so that its memory goes back to the system
and its peak is honest. It speaks JSON lines on stdout (`progress`, then `done` or `error`) and
ends when its stdin is closed, so that it never outlives the process that started it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import orjson

from shared.db.engine import database_errors, sync_engine
from shared.db.schema import check_schema
from shared.errors import JobFailed, TasteMatchError
from shared.jobs import records
from shared.logs import configure_logs, get_logger
from shared.peak_memory import peak_rss_mb
from shared.settings import Settings, load_settings
from shared.snapshot.manifest import Manifest, new_version
from shared.snapshot.opening import open_store
from shared.snapshot.parts import describe_parts
from worker import extract, lists, memory, projection
from worker.ranking import popularity
from worker.ranking.item_model import fit_item_graph
from worker.ranking.matrix import InteractionMatrix, MatrixBuilder

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from shared.snapshot.store import State

# The share of the whole run at which each stage ends, for the progress bar.
STAGES = {
    "extract": 0.25,
    "matrix": 0.3,
    "ranking": 0.45,
    "lists": 0.8,
    "projection": 0.9,
    "publish": 1.0,
}
TELL_SECONDS = 0.2

log = get_logger("worker.precompute")

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Extracted:
    """What the database held, read in one transaction."""

    catalogue: lists.Catalogue
    cities: extract.Cities
    users: extract.UserColumns
    tastes: dict[int, extract.Taste]
    builder: MatrixBuilder
    projection: projection.Projection
    plan: memory.Plan


class Progress:
    """Times the stages and tells the parent how far the run is."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told = 0.0
        self._stage = ""
        self.done: list[dict[str, Any]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        self._stage = name
        self.at(0.0, force=True)
        yield
        seconds = round(time.perf_counter() - started, 3)
        self.done.append({"name": name, "seconds": seconds})
        log.info("precompute.stage", stage=name, elapsed_s=seconds, peak_mb=round(peak_rss_mb(), 1))

    def at(self, fraction: float, *, force: bool = False) -> None:
        """`fraction` of the running stage, 0 to 1."""
        now = time.monotonic()
        if not force and now - self._told < TELL_SECONDS:
            return
        self._told = now
        names = list(STAGES)
        before = names.index(self._stage)
        low = STAGES[names[before - 1]] if before else 0.0
        self._tell(
            {
                "event": "progress",
                "stage": self._stage,
                "progress": low + (STAGES[self._stage] - low) * min(fraction, 1.0),
                "stages": self.done,
                "rss_mb": round(peak_rss_mb(), 1),
            }
        )


def precompute(
    settings: Settings,
    *,
    now: datetime,
    activate: bool,
    check: Callable[[], None],
    progress: Progress,
) -> tuple[Manifest, State]:
    """Computes and publishes one snapshot.

    `check` runs right before the version becomes visible; what it raises aborts the publish.
    Raises DatabaseUnavailable, StoreUnavailable, StoreFull, BudgetError, or JobFailed where the
    data hold nothing to recommend.
    """
    skipped: Counter[str] = Counter()
    store = open_store(settings)
    engine = sync_engine(settings)
    try:
        generation = store.pointer().generation
        with _scratch(settings) as folder:
            with progress.stage("extract"), database_errors():
                found = _extract(
                    engine, settings, folder, now=now, skipped=skipped, progress=progress
                )
            with progress.stage("matrix"):
                matrix = found.builder.build()
            with progress.stage("ranking"):
                scores = popularity.popularity(matrix)
                graph = fit_item_graph(
                    matrix,
                    k=found.plan.k,
                    item_block=found.plan.item_block,
                    is_candidate=found.catalogue.is_active,
                )
            with progress.stage("lists"):
                lists.write_catalogue(found.catalogue, folder)
                (folder / "cities").write_bytes(orjson.dumps(found.cities.names))
                lists.write_popular(scores, found.catalogue, len(found.cities.names), folder)
                lists.write_similar(graph, found.catalogue, folder)
                user_counts = lists.write_user_lists(
                    matrix=matrix,
                    graph=graph,
                    catalogue=found.catalogue,
                    popular_scores=scores,
                    users=found.users,
                    tastes=found.tastes,
                    head_length=found.plan.head_length,
                    user_block=found.plan.user_block,
                    block_entries=found.plan.block_entries,
                    folder=folder,
                    on_users=lambda done: progress.at(done / max(1, len(found.users.ids))),
                )
            counts = _counts(found, matrix, user_counts, skipped)
            as_of = datetime.fromtimestamp(matrix.as_of_seconds, UTC) if matrix.orders else None
            del graph, matrix, scores
            with progress.stage("projection"):
                for number, _ in enumerate(projection.compress_metadata(folder), start=1):
                    progress.at(number / 3)
            with progress.stage("publish"):
                sizes, checksums = describe_parts(folder)
                manifest = Manifest(
                    version=new_version(datetime.now(UTC), after=store.newest_version()),
                    created_at=datetime.now(UTC),
                    data_as_of=as_of,
                    algorithm=_algorithm(found.plan),
                    counts=counts,
                    bytes=sizes,
                    checksums=checksums,
                    metadata_version=found.projection.version,
                    stages=list(progress.done),
                    peak_rss_mb=round(peak_rss_mb(), 1),
                )
                total = sum(sizes.values())
                state = store.publish(
                    manifest,
                    {name: folder / name for name in sizes},
                    expected_generation=generation,
                    activate=activate,
                    on_progress=lambda written: progress.at(written / total),
                    check=check,
                )
                store.prune(settings.keep_snapshots)
        return manifest, state
    finally:
        store.close()
        engine.dispose()


def plan(settings: Settings) -> tuple[memory.Plan, dict[str, int]]:
    """The block sizes and predicted figures of a run on the data as they are, and their counts."""
    engine = sync_engine(settings)
    try:
        with database_errors(), extract.reading(engine) as connection:
            check_schema(connection)
            counts = extract.counts(connection)
            return _plan(settings, counts), counts
    finally:
        engine.dispose()


def _extract(
    engine: Engine,
    settings: Settings,
    folder: Path,
    *,
    now: datetime,
    skipped: Counter[str],
    progress: Progress,
) -> Extracted:
    with extract.reading(engine) as connection:
        check_schema(connection)
        counts = extract.counts(connection)
        chosen = _plan(settings, counts)
        cities = extract.Cities()
        catalogue, shown = _catalogue(connection, cities, folder, chosen, skipped)
        users = extract.users(connection, cities, block_rows=chosen.extract_rows)
        tastes = extract.tastes(connection, cities, block_rows=chosen.extract_rows)
        builder = MatrixBuilder(user_ids=users.ids, restaurant_ids=catalogue.ids)
        rows = 0
        for block in extract.orders(
            connection, block_rows=chosen.extract_rows, now=now, skipped=skipped
        ):
            builder.add(
                user_ids=block.user_ids,
                restaurant_ids=block.restaurant_ids,
                epoch_seconds=block.epoch_seconds,
            )
            rows += len(block.user_ids)
            progress.at(rows / max(1, counts["orders"]))
    if not shown.restaurants:
        raise JobFailed("there are no active restaurants to recommend: import some first")
    return Extracted(catalogue, cities, users, tastes, builder, shown, chosen)


def _catalogue(
    connection: Connection,
    cities: extract.Cities,
    folder: Path,
    chosen: memory.Plan,
    skipped: Counter[str],
) -> tuple[lists.Catalogue, projection.Projection]:
    """Reads the restaurants once: columns stay, the metadata document goes to its file."""
    ids: list[int] = []
    codes: list[int] = []
    active: list[bool] = []
    cuisines: list[str | None] = []
    prices: list[int] = []

    def noted() -> Iterator[extract.RestaurantRow]:
        for row in extract.restaurants(connection, block_rows=chosen.extract_rows, skipped=skipped):
            ids.append(row.id)
            codes.append(cities.add(row.city))
            active.append(row.is_active)
            cuisines.append(sys.intern(row.cuisine_type) if row.cuisine_type else None)
            prices.append(row.price_range or 0)
            yield row

    shown = projection.write_metadata(noted(), folder)
    catalogue = lists.Catalogue(
        ids=np.array(ids, np.int64),
        cities=np.array(codes, np.uint16),
        is_active=np.array(active, np.bool_),
        cuisines=cuisines,
        price_ranges=np.array(prices, np.uint8),
    )
    return catalogue, shown


def _plan(settings: Settings, counts: dict[str, int]) -> memory.Plan:
    return memory.make_plan(
        users=counts["users"],
        restaurants=counts["restaurants"],
        orders=counts["orders"],
        budget_mb=settings.worker_memory_mb,
        store_budget_mb=settings.snapshot_mb,
        head_length=lists.LIST_IDS,
    )


def _counts(
    found: Extracted,
    matrix: InteractionMatrix,
    users: lists.UserCounts,
    skipped: Counter[str],
) -> dict[str, Any]:
    reasons = {reason: number for reason, number in sorted(skipped.items()) if number}
    if matrix.skipped:
        reasons["orders of unknown users or restaurants"] = matrix.skipped
    return {
        "restaurants": found.projection.restaurants,
        "users": len(found.users.ids),
        "interactions": len(matrix.restaurants),
        "orders": matrix.orders,
        "cities": len(found.cities.names) - 1,
        "users_with_personal_lists": users.personal,
        "users_with_preference_lists": users.preferences,
        "users_with_five_orders": users.five,
        "users_with_five_orders_and_personal_lists": users.personal_of_five,
        "skipped": {"rows": sum(reasons.values()), "reasons": reasons},
    }


def _algorithm(chosen: memory.Plan) -> dict[str, Any]:
    return {
        "name": "item-graph",
        "parameters": {"k": chosen.k, "head_length": chosen.head_length},
    }


@contextmanager
def _scratch(settings: Settings) -> Iterator[Path]:
    """A folder of this run's own; what runs that were killed left behind is removed."""
    home = settings.scratch_dir
    try:
        home.mkdir(parents=True, exist_ok=True)
        for left in home.iterdir():
            if not _is_running(left.name.split("-")[0]):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=home))
    except OSError as error:
        raise JobFailed(f"TASTEMATCH_DATA_DIR cannot be written ({error.strerror})") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: str) -> bool:
    return pid.isdigit() and Path(f"/proc/{pid}").exists()


@click.command()
@click.option("--origin", default="cli")
@click.option("--job-id")
@click.option("--owner")
@click.option("--no-activate", is_flag=True)
@click.option("--plan", "only_plan", is_flag=True)
def main(
    origin: str, job_id: str | None, owner: str | None, no_activate: bool, only_plan: bool
) -> None:
    out = sys.stdout.buffer
    lock = threading.Lock()

    def tell(event: dict[str, Any]) -> None:
        with lock:
            out.write(orjson.dumps(event) + b"\n")
            out.flush()

    if not only_plan:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        settings = load_settings()
        configure_logs(service="worker", level=settings.log_level)
        if only_plan:
            chosen, counts = plan(settings)
            tell({"event": "plan", "plan": asdict(chosen), "counts": counts})
            return
        log.info("precompute.started", origin=origin, job_id=job_id)
        manifest, state = precompute(
            settings,
            now=datetime.now(UTC),
            activate=not no_activate,
            check=_owner_check(settings, job_id, owner),
            progress=Progress(tell),
        )
        tell({"event": "done", "manifest": manifest.as_dict(), "state": state})
    except TasteMatchError as error:
        tell({"event": "error", "error": error.message, "kind": type(error).__name__})
        sys.exit(1)
    except MemoryError:
        tell({"event": "error", "error": "out of memory", "kind": "MemoryError"})
        sys.exit(1)
    except Exception as error:
        log.exception("precompute.crashed")
        reason = f"unexpected {type(error).__name__}; the worker's log says where"
        tell({"event": "error", "error": reason, "kind": type(error).__name__})
        sys.exit(1)


def _owner_check(settings: Settings, job_id: str | None, owner: str | None) -> Callable[[], None]:
    def check() -> None:
        if job_id is None or owner is None:
            return
        engine = sync_engine(settings)
        try:
            with database_errors(), engine.connect() as connection:
                records.check_owner(connection, job_id, owner=owner)
        finally:
            engine.dispose()

    return check


def _end_with_parent() -> None:
    """Ends the process when the parent's end of stdin is closed."""
    # Not through sys.stdin: its lock would be held by this thread when the interpreter ends.
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
