"""Follows the store's pointer in a thread of its own, and swaps the snapshot requests read.

Requests only look at `active`: one reference, replaced in one step. Whatever the store, the disk
or a damaged version does, the last good snapshot goes on being served; what is wrong is kept in
`status` for `/ready` and said in the log at most once a minute.

Versions before stay open for the pages that began in them, as many as the store keeps, until the
store no longer has them. What changed since a version was made is read before it is shown
(`overlay_follower.py`), so that snapshot and overlay are swapped as one.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from api.kept_versions import KeptVersions
from api.local_copies import (
    current_version,
    fetch,
    local_versions,
    mark_current,
    open_verified,
    remove_copy,
    sweep,
)
from api.local_snapshot import LocalSnapshot
from api.overlay_follower import OverlayFollower
from api.reports import OncePerMinute
from shared import metrics
from shared.errors import (
    DependencyError,
    SnapshotDamaged,
    SnapshotError,
    SnapshotUnavailable,
    SnapshotUnsupported,
    TasteMatchError,
    VersionGone,
)
from shared.logs import get_logger
from shared.settings import Settings
from shared.snapshot.store import SnapshotCatalog

POLL_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 3.0
BAD_VERSION_SECONDS = 30.0
SILENT_SECONDS = 4.0  # without word from the store for this long, it counts as down
STOP_SECONDS = 3.0
ARRIVING_SECONDS = 60.0  # a version younger than this may be on its way to this process

_UNREADABLE = "the snapshot in the store cannot be read"

StoreState = Literal["ok", "down", "empty"]


@dataclass(frozen=True, slots=True)
class FollowerStatus:
    """`problem` says why the version the store points to is not the one that is served."""

    store: StoreState
    problem: str | None


class _Stopped(Exception):
    pass


class SnapshotFollower:
    """Owns the thread. `open_local` may be called before `start`, so that the first request
    finds a snapshot."""

    def __init__(
        self, settings: Settings, store: SnapshotCatalog, overlay: OverlayFollower
    ) -> None:
        self.active: LocalSnapshot | None = None
        self._store = store
        self._overlay = overlay
        self._folder = settings.snapshots_dir
        self.public_vary = (
            b"Accept-Encoding, Origin" if settings.cors_origins else b"Accept-Encoding"
        )
        self._kept = KeptVersions(
            self._folder, store, most=settings.keep_snapshots - 1, open_copy=self._opened
        )
        overlay.copies = self._kept.opened
        self._previous: str | None = None
        self._bad: dict[str, float] = {}
        self._problem: str | None = None
        self._is_empty = False
        self._is_down = False
        self._failures = 0
        self._heard_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshot-follower", daemon=True)
        self._log = get_logger(__name__)
        self._report = OncePerMinute(self._log)

    def require_active(self) -> LocalSnapshot:
        """Raises SnapshotUnavailable."""
        if (active := self.active) is None:
            raise SnapshotUnavailable(f"{self.reason_for_nothing()}; try again soon")
        return active

    def reason_for_nothing(self) -> str:
        return "no snapshot has been published yet" if self._problem is None else _UNREADABLE

    def require_version(self, version: str) -> LocalSnapshot:
        """The active version or one of those before it. Raises VersionGone, SnapshotUnavailable."""
        active = self.require_active()
        if active.version == version:
            return active
        if (kept := self._kept.find(version)) is not None:
            return kept
        young = datetime.now(UTC) - timedelta(seconds=ARRIVING_SECONDS)
        if version > max(active.version, young.strftime("%Y%m%dT%H%M%S%fZ")):
            raise SnapshotUnavailable("the snapshot of this page has not arrived here yet")
        raise VersionGone("the snapshot of this page is no longer kept; begin again without cursor")

    def status(self) -> FollowerStatus:
        is_down = self._is_down or time.monotonic() - self._heard_at > SILENT_SECONDS
        store: StoreState = "down" if is_down else "empty" if self._is_empty else "ok"
        return FollowerStatus(store, self._problem)

    def open_local(self) -> None:
        """Opens the copy served last, or else the newest good one. Damaged copies are removed."""
        last = current_version(self._folder)
        others = [version for version in local_versions(self._folder) if version != last]
        for version in [last, *others] if last else others:
            if (snapshot := self._opened(version)) is not None:
                self.active = snapshot
                self._overlay.now_shown(snapshot)
                _show(snapshot)
                self._log.info("snapshot.opened", version=version, origin="local")
                return

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; a store call that hangs is left to its own time-out."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        delay = 0.0
        while not self._stop.wait(delay):
            try:
                delay = self._step()
                if self.active is not None:
                    self._kept.look_after(self.active.version, may_ask=not self._is_down)
            except _Stopped:
                return
            except Exception:
                self._report("follower.failed", "unexpected", exc_info=True)
                delay = MAX_BACKOFF_SECONDS

    def _step(self) -> float:
        """One look at the pointer and what follows from it; returns the seconds until the next."""
        try:
            pointer = self._store.pointer()
            self._heard()
            metrics.snapshot_pinned(pointer.is_pinned)
            self._is_empty = pointer.version is None and self.active is not None
            if pointer.version is None or self._is_served(pointer.version):
                self._problem = None
            elif self._bad.get(pointer.version, 0.0) <= time.monotonic():
                self._switch(pointer.version)
                if self.active is None:
                    self._serve_another(pointer.version)
        except DependencyError as error:
            self._is_down = True
            metrics.dependency_degraded("store", True)
            self._failures = min(self._failures + 1, 8)
            self._report("store.down", "store", reason=error.message)
            ceiling: float = min(MAX_BACKOFF_SECONDS, POLL_SECONDS * 2**self._failures)
            return random.uniform(POLL_SECONDS / 2, ceiling)
        except TasteMatchError as error:
            self._problem = error.message
            self._report("store.pointer_unreadable", "pointer", reason=error.message)
        return POLL_SECONDS

    def _heard(self) -> None:
        if self._stop.is_set():
            raise _Stopped
        self._heard_at = time.monotonic()
        if self._is_down:
            self._is_down = False
            self._failures = 0
            self._report.forget("store.down", "store")
            metrics.dependency_degraded("store", False)
            self._log.info("store.back")

    def _is_served(self, version: str) -> bool:
        return self.active is not None and self.active.version == version

    def _serve_another(self, refused: str) -> None:
        """The newest one that was active before, until that one can be read."""
        bad, problem = self._bad, self._problem
        for entry in self._store.versions():
            if entry.state == "kept" and entry.manifest.version != refused:
                self._switch(entry.manifest.version)
                if self.active is not None:
                    break
        self._bad, self._problem = bad, problem

    def _switch(self, version: str) -> None:
        """Makes that version the active one. Raises DependencyError; other trouble is noted."""
        started = time.monotonic()
        try:
            snapshot = self._opened(version)
            origin = "store" if snapshot is None else "local"
            if snapshot is None:
                manifest = self._store.manifest(version)
                folder = fetch(self._store, manifest, self._folder, on_chunk=self._heard)
                snapshot = LocalSnapshot(folder, manifest, public_vary=self.public_vary)
            self._overlay.prepare(snapshot)
        except SnapshotError as error:
            remove_copy(self._folder / version)  # its bytes are right and yet it cannot be read
            is_foreign = isinstance(error, SnapshotUnsupported)
            self._refuse(version, error.message, "unsupported" if is_foreign else "damaged")
            return
        except OSError as error:
            reason = f"no local copy could be made: {error.strerror or error}"
            self._refuse(version, reason, "no_space")
            return
        if self.active is not None:
            self._previous = self.active.version
            self._kept.add(self.active, active=version)
        self._problem = None
        self._bad = {}
        with self._overlay.lock:  # so that what was told is in the lists of one or the other
            self.active = snapshot
            self._overlay.now_shown(snapshot)
        _show(snapshot)
        self._log.info(
            "snapshot.switched",
            version=version,
            previous=self._previous,
            origin=origin,
            seconds=round(time.monotonic() - started, 3),
        )
        self._tidy(version)

    def _opened(self, version: str) -> LocalSnapshot | None:
        """The local copy of that version, if there is a good one."""
        folder = self._folder / version
        if not folder.is_dir():
            return None
        try:
            snapshot = open_verified(folder, public_vary=self.public_vary)
            self._overlay.attach(snapshot)
            return snapshot
        except (SnapshotDamaged, FileNotFoundError) as error:
            self._log.warning("snapshot.local_copy_damaged", version=version, reason=str(error))
            remove_copy(folder)
        except (SnapshotUnsupported, OSError) as error:
            self._log.warning("snapshot.local_copy_unusable", version=version, reason=str(error))
        return None

    def _refuse(
        self,
        version: str,
        reason: str,
        kind: Literal["damaged", "unsupported", "no_space"],
    ) -> None:
        metrics.snapshot_load_failed(kind)
        self._bad = {version: time.monotonic() + BAD_VERSION_SECONDS}
        self._problem = f"{version}: {reason}"
        self._report("snapshot.refused", version, version=version, reason=reason)

    def _tidy(self, version: str) -> None:
        """Keeps the copies of the current version and of as many others as the store keeps."""
        try:
            mark_current(self._folder, version)
            kept = {version, *self._kept.copies(version)}
            for other in local_versions(self._folder):
                if other not in kept:
                    remove_copy(self._folder / other)
            sweep(self._folder)
        except OSError as error:
            self._report("snapshot.not_tidied", "tidy", reason=error.strerror)


def _show(snapshot: LocalSnapshot) -> None:
    manifest = snapshot.manifest
    counts = {name: count for name, count in manifest.counts.items() if isinstance(count, int)}
    metrics.snapshot_taken_up(
        created_at=snapshot.created_at,
        loaded_at=time.time(),
        algorithm=str(manifest.algorithm.get("name", "")),
        schema=manifest.schema,
        entities=counts,
        part_bytes=manifest.bytes,
    )
