"""The last step of a run: its files become a version, unless the run is no longer wanted."""

from collections.abc import Callable
from pathlib import Path

from shared.errors import PublishSuperseded
from shared.logs import get_logger
from shared.snapshot.manifest import Manifest
from shared.snapshot.store import SnapshotPublisher, State
from worker.parent import SWITCHING
from worker.progress import Progress

ROUNDS = 3

log = get_logger("worker.precompute")


def publish(
    store: SnapshotPublisher,
    manifest: Manifest,
    folder: Path,
    *,
    generation: int | None,
    activate: bool,
    check: Callable[[], None],
    before_visible: Callable[[], None],
    progress: Progress,
) -> State:
    """Publishes the parts in `folder`, and tells the parent at once when they are visible.

    A run that had lost its job may have swept this publish before it noticed: then it is done
    again. `before_visible` is called when all parts are written. Raises what both calls and
    `SnapshotPublisher.publish` raise.
    """
    total = sum(manifest.bytes.values())

    def last_check() -> None:
        before_visible()
        SWITCHING.acquire()  # until the parent knows what became of it
        check()

    def attempt() -> State:
        check()  # a publish sweeps others, and one that is not wanted must not
        try:
            state = store.publish(
                manifest,
                {name: folder / name for name in manifest.bytes},
                expected_generation=generation,
                activate=activate,
                on_progress=lambda written: progress.at(written / total),
                check=last_check,
            )
            progress.published(manifest.version)
            return state
        finally:
            if SWITCHING.locked():
                SWITCHING.release()

    for _ in range(ROUNDS - 1):
        try:
            return attempt()
        except PublishSuperseded as error:
            log.warning("publish.again", version=manifest.version, reason=error.message)
    return attempt()
