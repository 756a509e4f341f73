"""One precompute, stage after stage, top to bottom: the only control flow of the pipeline.

Run as a child process (`python -m worker.precompute`), so that its memory goes back to the system
and its peak is honest. It speaks JSON lines on stdout (`progress`, `published` at the moment of the
switch, then `done` or `error`) and ends when its stdin is closed, so that it never outlives the
process that started it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from shared.startup import loaded
from shared.db.engine import database_errors, sync_engine
from shared.errors import SnapshotDamaged, TasteMatchError
from shared.logs import configure_logs, get_logger
from shared.peak_memory import peak_rss_with_parent_mb
from shared.settings import Settings, load_settings
from shared.snapshot.manifest import Manifest, new_version
from shared.snapshot.opening import open_overlay, open_store
from shared.snapshot.parts import describe_parts
from worker import gate, list_parts, metadata_history, projection, publication
from worker.description import algorithm_of, counts_of, kept_model
from worker.executors import block_workers
from worker.heap import bound_heap
from worker.held_out_quality import measure_quality
from worker.inputs import plan_of, read_inputs
from worker.model import fit_model, release_models
from worker.model_files import describe_model, keep_model, prune_models
from worker.ownership import Ownership
from worker.parent import end_with_parent
from worker.planning import predict, with_reserve
from worker.progress import Progress
from worker.ranking import popularity
from worker.ranking.array_files import load_matrix, save_matrix
from worker.refresher_catch_up import CatchUp, tidy_overlay
from worker.scratch import scratch_folder

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from shared.snapshot.overlay import OverlayWriter
    from shared.snapshot.store import SnapshotStore, State

log = get_logger("worker.precompute")


def precompute(
    settings: Settings,
    *,
    now: datetime,
    activate: bool,
    check: Callable[[], None],
    progress: Progress,
    job_id: str | None = None,
) -> tuple[Manifest, State]:
    """Computes and publishes one snapshot.

    `check` runs before the publish, and again right before the version becomes visible; what it
    raises aborts the publish. job_id: of the job that the manifest names.
    Raises DatabaseUnavailable, StoreUnavailable, StoreFull, BudgetError, or JobFailed where the
    data hold nothing to recommend.
    """
    skipped: Counter[str] = Counter()
    store, overlay = open_store(settings), open_overlay(settings)
    engine = sync_engine(settings)
    try:
        generation = _generation(store)
        with scratch_folder(settings.scratch_dir) as scratch:
            folder, model_folder = _rooms(scratch)
            with progress.stage("extract"), database_errors():
                found = read_inputs(
                    engine,
                    settings,
                    folder,
                    scratch=scratch,
                    now=now,
                    skipped=skipped,
                    progress=progress,
                )
            with progress.stage("matrix"):
                matrix = save_matrix(found.builder.build(), model_folder)
                plan = plan_of(settings, matrix)
                del matrix
            with block_workers(settings, plan.threads) as workers:
                with progress.stage("quality"):
                    measured = measure_quality(
                        found.sample,
                        found.users,
                        found.catalogue.facts,
                        settings=settings,
                        folder=scratch / "quality",
                        workers=workers,
                        on_progress=progress.at,
                    )
                with progress.stage("ranking"):
                    scores = popularity.popularity(load_matrix(model_folder))
                    release_models()
                    graph = fit_model(
                        load_matrix(model_folder),
                        model_folder,
                        facts=found.catalogue.facts,
                        weights=measured.weights,
                        plan=plan,
                        workers=workers,
                        on_rows=lambda rows: progress.at(rows / len(found.catalogue.ids)),
                    )
                with progress.stage("lists"):
                    user_counts = list_parts.write_lists(
                        found,
                        list_parts.Ranked(graph, scores, plan),
                        model_folder=model_folder,
                        workers=workers,
                        folder=folder,
                        progress=progress,
                    )
            matrix = load_matrix(model_folder)
            counts = counts_of(found, matrix, user_counts, skipped)
            as_of = datetime.fromtimestamp(matrix.as_of_seconds, UTC) if matrix.orders else None
            describe_model(model_folder, kept_model(found, matrix, scores, plan))
            del graph, matrix, scores
            release_models()
            with progress.stage("projection"):
                for number, _ in enumerate(projection.compress_metadata(folder), start=1):
                    progress.at(number / 4)
                metadata_history.write_history(
                    store, folder, version=found.projection.version, scratch=scratch, now=now
                )
            with progress.stage("publish"):
                sizes, checksums = describe_parts(folder)
                manifest = Manifest(
                    version=new_version(datetime.now(UTC), after=store.newest_version()),
                    created_at=datetime.now(UTC),
                    data_as_of=as_of,
                    algorithm=algorithm_of(plan, measured.weights, measured.trials),
                    quality=measured.quality,
                    counts=counts,
                    bytes=sizes,
                    checksums=checksums,
                    metadata_version=found.projection.version,
                    stages=list(progress.done),
                    peak_rss_mb=round(peak_rss_with_parent_mb(), 1),
                    warnings=store.hazards(),
                    job_id=job_id,
                    changes_since=found.changes_since,
                )
                if activate:
                    max_drop = settings.max_quality_drop
                    manifest = gate.judge_against_active(manifest, store, max_drop=max_drop)
                catch_up = CatchUp(
                    engine, store, overlay, version=manifest.version, since=found.changes_since
                )
                catch_up.before_publish(model_folder)
                state = publication.publish(
                    store,
                    manifest,
                    folder,
                    generation=generation,
                    activate=activate and not manifest.held_because,
                    check=check,
                    before_visible=catch_up.before_visible,
                    progress=progress,
                )
                keep_model(model_folder, home=settings.models_dir, version=manifest.version)
                _remove_old(settings, engine, store, overlay)
            _warn(manifest)
        return manifest, state
    finally:
        overlay.close()
        store.close()
        engine.dispose()


def _remove_old(
    settings: Settings, engine: Engine, store: SnapshotStore, overlay: OverlayWriter
) -> None:
    store.prune(settings.keep_snapshots)
    prune_models(settings.models_dir, [entry.manifest.version for entry in store.versions()])
    tidy_overlay(engine, store, overlay)


def _warn(manifest: Manifest) -> None:
    for warning in manifest.warnings:
        log.warning("store.hazard", reason=warning)
    if reasons := manifest.held_because:
        log.warning("snapshot.held", version=manifest.version, reason="; ".join(reasons))


def _rooms(scratch: Path) -> tuple[Path, Path]:
    """Folders for the parts of the snapshot and for the model."""
    rooms = scratch / "parts", scratch / "model"
    for room in rooms:
        room.mkdir()
    return rooms


def _generation(store: SnapshotStore) -> int | None:
    """None where the pointer is damaged: then this run sets it anew."""
    try:
        return store.pointer().generation
    except SnapshotDamaged:
        return None


@click.command()
@click.option("--origin", default="cli")
@click.option("--job-id")
@click.option("--owner")
@click.option("--no-activate", is_flag=True)
@click.option("--plan", "only_plan", is_flag=True)
@click.option("--reserve-mb", type=float, default=0)
@click.option("--log-level")
def main(
    *,
    origin: str,
    job_id: str | None,
    owner: str | None,
    no_activate: bool,
    only_plan: bool,
    reserve_mb: float,
    log_level: str | None,
) -> None:
    out = sys.stdout.buffer
    lock = threading.Lock()

    def tell(event: dict[str, Any]) -> None:
        with lock:
            out.write(orjson.dumps(event) + b"\n")
            out.flush()

    loaded()
    bound_heap()
    if not only_plan:
        end_with_parent()
    try:
        settings = load_settings()
        configure_logs(service="worker", level=log_level or settings.log_level)
        if only_plan:
            chosen, counts = predict(settings)
            tell({"event": "plan", "plan": asdict(chosen), "counts": counts})
            return
        log.info("precompute.started", origin=origin, job_id=job_id)
        if reserve_mb:
            smaller = with_reserve(settings, reserve_mb)
            if smaller is None:
                tell({"event": "alone"})
            settings = smaller or settings
        ownership = Ownership(settings, job_id, owner)
        earlier = ownership.begin()
        if earlier is not None:
            log.warning("precompute.published_before", version=earlier.manifest.version)
            manifest, state = earlier.manifest, earlier.state
        else:
            manifest, state = precompute(
                settings,
                now=datetime.now(UTC),
                activate=not no_activate,
                check=ownership.check,
                progress=Progress(tell),
                job_id=job_id,
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


if __name__ == "__main__":
    main()
