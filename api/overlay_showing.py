"""Keeps what is shown of a snapshot's metadata without the restaurants that closed.

Used under the overlay's lock. Nothing here keeps a version from being shown: where metadata cannot
be cut, the last ones that were right are shown until they can.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from api.local_snapshot import LocalSnapshot
from api.metadata_versions import MetadataVersions
from api.overlay import Overlay
from api.reports import OncePerMinute
from shared import overlay_metrics
from shared.logs import get_logger

MAX_REST_SECONDS = 3.0  # between two cuts of the metadata


class Showing:
    """`report` logs the same trouble once in a while; copies: other versions that are open."""

    def __init__(
        self,
        overlay: Overlay,
        *,
        copies: Callable[[], Collection[LocalSnapshot]],
        report: OncePerMinute,
    ) -> None:
        self._overlay = overlay
        self._copies = copies
        self._report = report
        self._versions = MetadataVersions(overlay.folder)
        self._copies_seen: frozenset[str] = frozenset()
        self._rested_at = 0.0
        self._log = get_logger(__name__)

    @property
    def rests(self) -> bool:
        return time.monotonic() < self._rested_at

    @property
    def has_other_copies(self) -> bool:
        """Whether `tell_of_versions` was called when there were others."""
        return self._copies_seen != {copy.version for copy in self._copies()}

    def show_first(self, snapshot: LocalSnapshot, before: LocalSnapshot | None) -> None:
        """As `show`, for a snapshot that takes the place of another one."""
        if not self.show(snapshot) and snapshot.shown is snapshot.whole:
            snapshot.shown = snapshot.instead(None if before is None else before.shown)

    def show(self, snapshot: LocalSnapshot) -> bool:
        """Whether what is shown is up to date."""
        gone = self._overlay.gone_in(snapshot)
        overlay_metrics.inactive(len(gone.ordinals))
        if snapshot.shown.gone == gone.ordinals and not snapshot.shown.is_interim:
            return True
        began = time.monotonic()
        try:
            shown = snapshot.whole
            if gone.ordinals:
                shown = snapshot.without(gone.ordinals, self._overlay.folder)
        except Exception:
            self._rested_at = time.monotonic() + MAX_REST_SECONDS
            self._report("metadata.not_cut", "metadata", exc_info=True)
            return False
        try:
            shown.forms.others = self._versions.others(snapshot, self._copies())
            snapshot.shown = shown
            self._versions.showing(snapshot)
        except Exception:  # clients get a full form in the place of a delta
            snapshot.shown = shown
            self._report("metadata.history_failed", "metadata", exc_info=True)
        now = time.monotonic()
        self._rested_at = now + min(4 * (now - began), MAX_REST_SECONDS)
        self._log.info(
            "metadata.cut",
            version=shown.metadata_version,
            inactive=len(gone.ordinals),
            seconds=round(now - began, 3),
        )
        return True

    def tell_of_versions(self, snapshot: LocalSnapshot) -> None:
        copies = self._copies()
        self._copies_seen = frozenset(copy.version for copy in copies)
        if snapshot.shown.is_interim:
            return
        try:
            snapshot.shown.forms.others = self._versions.others(snapshot, copies)
        except Exception:
            self._report("metadata.history_failed", "metadata", exc_info=True)
