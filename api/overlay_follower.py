"""Follows the overlay's logs in a thread of its own: exclusions, and lists of the active version.

A snapshot is shown only after its log was read to the end, and the metadata without the restaurants
that closed. Whatever the store does, what was taken before still holds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from weakref import WeakValueDictionary

from api.local_copies import local_versions
from api.local_snapshot import LocalSnapshot
from api.overlay import Overlay
from api.overlay_bridge import Abutment, Bridge
from api.overlay_erasing import Cleaner, erase, known_erased
from api.overlay_files import remove_abandoned
from api.overlay_lists import RefreshedLists
from api.overlay_logs import Exclusions, Taken
from api.overlay_reading import SWEEP_AGAIN_SECONDS, LogReader, Read, Sweep
from api.overlay_records import RecordsFull
from api.overlay_showing import MAX_REST_SECONDS, Showing
from api.reports import OncePerMinute
from shared import overlay_metrics
from shared.errors import DependencyError, SnapshotDamaged
from shared.logs import get_logger
from shared.settings import Settings
from shared.snapshot.overlay import EXCLUSIONS, OverlayReader

POLL_SECONDS = 0.4
MAX_ATTEMPTS = 3  # to read the log of a version before it is shown without
STOP_SECONDS = 3.0


class OverlayFollower:
    """`prepare` is called by the thread that is about to show a snapshot, all else by its own."""

    def __init__(self, settings: Settings, overlay: Overlay, reader: OverlayReader) -> None:
        self._overlay = overlay
        self._reader = reader
        self._snapshots_dir = settings.snapshots_dir
        self._log = get_logger(__name__)
        self._report = OncePerMinute(self._log)
        self._showing = Showing(overlay, copies=self._copies, report=self._report)
        self._lists: WeakValueDictionary[str, RefreshedLists] = WeakValueDictionary()
        self._active: LocalSnapshot | None = None
        self.copies: Callable[[], Collection[LocalSnapshot]] = tuple
        """Other versions that are open."""
        self.read_at = 0.0
        """When both logs were last read to their end, in seconds since 1970."""
        self.sweep = Sweep()
        self._cleaner = Cleaner()
        self._full: set[str] = set()
        self._attempts: dict[str, int] = {}
        self._was_down = True
        self.lock = threading.RLock()
        """Held while a record is taken, and by whoever replaces what is shown."""
        self._stop = threading.Event()
        self._logs = LogReader(reader, self._stop)
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="overlay-follower", daemon=True)
        overlay.on_inactive = self._woken.set

    def attach(self, snapshot: LocalSnapshot) -> None:
        """Gives a snapshot the lists that are on the disk, and cuts its metadata."""
        with self.lock:
            lists = self._lists.get(snapshot.version)
            if lists is None:
                lists = RefreshedLists(
                    self._overlay.folder,
                    snapshot.version,
                    restaurants=snapshot.restaurants.count,
                    cities=len(snapshot.cities),
                )
                self._lists[snapshot.version] = lists
                erase([lists], known_erased(lists, self._exclusions()))
            snapshot.refreshed = lists
            self._overlay.gone_in(snapshot)

    def prepare(self, snapshot: LocalSnapshot) -> None:
        """Called before a snapshot is shown. Raises StoreUnavailable where it is to be tried
        again."""
        with self.lock:
            self.attach(snapshot)
            try:
                self._read_exclusions()
                self._read_lists(snapshot)
            except SnapshotDamaged as error:
                self._report("overlay.damaged", snapshot.version, reason=error.message)
            except DependencyError as error:
                self._was_down = True
                tried = self._attempts.get(snapshot.version, 0) + 1
                self._attempts = {snapshot.version: tried}
                if tried < MAX_ATTEMPTS:
                    raise
                self._report("overlay.not_read", snapshot.version, reason=error.message)
            self._lead_over(snapshot)
            self._showing.show_first(snapshot, self._active)

    def now_shown(self, snapshot: LocalSnapshot) -> None:
        """Called after the snapshot became the active one."""
        with self.lock:
            self._lead_over(snapshot)
            before, self._active = self._active, snapshot
            self.sweep.again()  # it may contain more of what was told
            self._showing.show_first(snapshot, before)
            self._showing.tell_of_versions(snapshot)
            notes = self._overlay.notes
            notes.snapshot_came(snapshot.manifest.changes_since)
            assert snapshot.refreshed is not None
            for user_id, noted in list(notes.users.items()):
                found = snapshot.refreshed.find(user_id) if noted.orders else None
                if found is not None:
                    notes.lists_came(user_id, found.user.revision)
            kept = {*local_versions(self._snapshots_dir), snapshot.version}
            for version, lists in list(self._lists.items()):
                if version not in kept:
                    lists.remove()
            remove_abandoned(self._overlay.folder, kept)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; a store call that hangs is left to its own time-out."""
        self._stop.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        if not self._thread.is_alive():
            self._reader.close()

    def _run(self) -> None:
        due = 0.0
        while not self._stop.is_set():
            try:
                with self.lock:
                    if time.monotonic() >= due:
                        due = time.monotonic() + self._poll()
                    self._follow_changes()
            except Exception:
                self._report("overlay.failed", "unexpected", exc_info=True)
                due = time.monotonic() + MAX_REST_SECONDS
            self._woken.wait(max(0.0, due - time.monotonic()))
            self._woken.clear()

    def _poll(self) -> float:
        """One look at both logs; returns the seconds until the next."""
        delay = POLL_SECONDS
        try:
            self._read_exclusions()
            if (active := self._active) is not None:
                for user_id, revision in self._read_lists(active):
                    self._overlay.notes.lists_came(user_id, revision)
            if self._was_down:
                self.sweep.again()
            self._was_down = False
            self._sweep()
            self.read_at = time.time()
            overlay_metrics.read_at(self.read_at)
        except DependencyError as error:
            self._was_down = True
            self._report("overlay.down", "store", reason=error.message)
        except SnapshotDamaged as error:
            self._report("overlay.damaged", "store", reason=error.message)
            delay = MAX_REST_SECONDS
        if self._overlay.notes.expire():
            self._overlay.combine()
        try:
            self._cleaner.clean([self._exclusions(), *self._lists.values()])
        except OSError as error:
            self._report("overlay.not_cleaned", "disk", reason=str(error))
        overlay_metrics.noted(self._overlay.notes.count)
        return delay

    def _follow_changes(self) -> None:
        """Brings what is shown of the metadata up to date, with a rest after each time."""
        active = self._active
        if active is None or self._showing.rests:
            return
        self._showing.show(active)
        if self._showing.has_other_copies:
            self._showing.tell_of_versions(active)
            self._lead_over(active)

    def _lead_over(self, snapshot: LocalSnapshot) -> None:
        """Gives a snapshot the bridge from all other versions that are open here."""
        others = {} if snapshot.bridge is None else {id(x.lists): x for x in snapshot.bridge.others}
        for other in self._open():
            lists = other.refreshed
            if lists is not None and other.version != snapshot.version:
                others[id(lists)] = Abutment(lists, other.restaurants.ids)
        contained = snapshot.manifest.changes_since
        snapshot.bridge = Bridge(others.values(), contained_before=contained) if others else None

    # --- logs ---

    def _read_exclusions(self) -> None:
        exclusions = self._exclusions()
        for read in self._logs.new_entries(
            EXCLUSIONS, exclusions.last_place, looks_back=self._was_down
        ):
            self._obey(read)
        overlay_metrics.known("exclusions", len(exclusions))

    def _exclusions(self) -> Exclusions:
        exclusions = self._overlay.exclusions
        assert exclusions is not None, "it is opened before anything is followed"
        return exclusions

    def _obey(self, read: Read) -> None:
        """Takes records of EXCLUSIONS; what has no room is looked for again."""
        taken = self._exclusions().take(read.entries, read.known)
        self._tell_of_refused(EXCLUSIONS, taken)
        if taken.left:
            self._full.add(EXCLUSIONS)
            self._report("overlay.full", EXCLUSIONS, log=EXCLUSIONS, records=taken.left)
            self.sweep.due_within(SWEEP_AGAIN_SECONDS)
        erase(self._lists.values(), taken.erased)
        self._overlay.obeyed(taken.told)
        for snapshot in self._open():
            self._overlay.gone_in(snapshot)

    def _copies(self) -> Collection[LocalSnapshot]:
        return self.copies()

    def _open(self) -> Iterator[LocalSnapshot]:
        if self._active is not None:
            yield self._active
        yield from self.copies()

    def _sweep(self) -> None:
        """Drops what is no longer in EXCLUSIONS; each time some reads."""
        sweep, exclusions, notes = self.sweep, self._exclusions(), self._overlay.notes
        if self._active is None or not (sweep.is_under_way or sweep.is_due):
            return
        if not sweep.is_under_way:
            self._full.discard(EXCLUSIONS)
            keys = {*exclusions.keys, *notes.users.copy()}
            sweep.begin(self._logs, keys.union(~each for each in notes.restaurants.copy()))
        for read in sweep.read(self._logs, exclusions.last_place):
            self._obey(read)
        if (unseen := sweep.end(self._logs)) is None:
            return
        if EXCLUSIONS in self._full:
            sweep.due_within(SWEEP_AGAIN_SECONDS)
        instants = [each.manifest.changes_since for each in self._open()]
        known = [each for each in instants if each is not None]
        if unseen and len(known) == len(instants):
            self._overlay.forgotten(unseen, min(known))

    def _read_lists(self, snapshot: LocalSnapshot) -> list[tuple[int, int]]:
        """Users whose lists came, with their revisions."""
        lists, log = snapshot.refreshed, snapshot.version
        assert lists is not None
        came: list[tuple[int, int]] = []
        for read in self._logs.new_entries(log, lists.last_place, looks_back=self._was_down):
            try:
                taken = lists.take(read.entries)
            except RecordsFull:
                self._full.add(log)
                self._report("overlay.full", log, log=log)
                break
            self._full.discard(log)
            self._tell_of_refused(log, taken)
            came += [(each.subject_id, each.revision or 0) for each in taken.told]
        overlay_metrics.known("lists", len(lists))
        return came

    def _tell_of_refused(self, log: str, taken: Taken) -> None:
        if taken.refused:
            overlay_metrics.refused(taken.refused)
            self._report("overlay.refused", log, log=log, records=taken.refused)
