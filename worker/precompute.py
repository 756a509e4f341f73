"""One precompute, stage after stage, top to bottom: the only control flow of the pipeline.

Run as a child process (`python -m worker.precompute`), so that its memory goes back to the system
and its peak is honest. It speaks JSON lines on stdout (`progress`, then `done` or `error`) and
ends when its stdin is closed, so that it never outlives the process that started it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import orjson

from shared.db.engine import database_errors, sync_engine
from shared.db.schema import check_schema
from shared.errors import SnapshotDamaged, TasteMatchError
from shared.jobs import records
from shared.logs import configure_logs, get_logger
from shared.peak_memory import peak_rss_mb
from shared.settings import Settings, load_settings
from shared.snapshot.manifest import Manifest, new_version
from shared.snapshot.opening import open_store
from shared.snapshot.parts import describe_parts
from worker import extract, gate, lists, memory, projection, public_lists
from worker.catalogue import write_catalogue
from worker.inputs import Inputs, plan_for, read_inputs
from worker.progress import Progress
from worker.ranking import popularity
from worker.ranking.item_model import fit_item_graph
from worker.ranking.matrix import InteractionMatrix
from worker.scratch import scratch_folder

if TYPE_CHECKING:
    from shared.snapshot.store import SnapshotStore, State

log = get_logger("worker.precompute")


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
        generation = _generation(store)
        with scratch_folder(settings.scratch_dir) as folder:
            with progress.stage("extract"), database_errors():
                found = read_inputs(
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
                    block_entries=found.plan.block_entries,
                    is_candidate=found.catalogue.is_active,
                )
            with progress.stage("lists"):
                write_catalogue(found.catalogue, folder)
                (folder / "cities").write_bytes(orjson.dumps(found.cities.names))
                public_lists.write_public_lists(
                    scores,
                    found.builder.activity,
                    found.catalogue,
                    cities=len(found.cities.names),
                    folder=folder,
                )
                public_lists.write_similar(graph, scores, found.catalogue, folder)
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
                if activate:
                    max_drop = settings.max_quality_drop
                    manifest = gate.judge_against_active(manifest, store, max_drop=max_drop)
                total = sum(sizes.values())
                state = store.publish(
                    manifest,
                    {name: folder / name for name in sizes},
                    expected_generation=generation,
                    activate=activate and not manifest.held_because,
                    on_progress=lambda written: progress.at(written / total),
                    check=check,
                )
                store.prune(settings.keep_snapshots)
            if reasons := manifest.held_because:
                log.warning("snapshot.held", version=manifest.version, reason="; ".join(reasons))
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
            return plan_for(settings, counts), counts
    finally:
        engine.dispose()


def _generation(store: SnapshotStore) -> int | None:
    """None where the pointer is damaged: then this run sets it anew."""
    try:
        return store.pointer().generation
    except SnapshotDamaged:
        return None


def _counts(
    found: Inputs,
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
        "users_with_five_restaurants": users.five,
        "users_with_five_restaurants_and_personal_lists": users.personal_of_five,
        "skipped": {"rows": sum(reasons.values()), "reasons": reasons},
    }


def _algorithm(chosen: memory.Plan) -> dict[str, Any]:
    return {
        "name": "item-graph",
        "parameters": {"k": chosen.k, "head_length": chosen.head_length},
    }


@click.command()
@click.option("--origin", default="cli")
@click.option("--job-id")
@click.option("--owner")
@click.option("--no-activate", is_flag=True)
@click.option("--plan", "only_plan", is_flag=True)
@click.option("--log-level")
def main(
    *,
    origin: str,
    job_id: str | None,
    owner: str | None,
    no_activate: bool,
    only_plan: bool,
    log_level: str | None,
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
        configure_logs(service="worker", level=log_level or settings.log_level)
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
