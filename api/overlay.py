"""What is not shown, or shown otherwise, than the snapshot says: records of the worker, and notes.

Records come through the store and hold for every replica (`overlay_logs.py`); notes are what a
write changed in this process alone, at once (`overlay_notes.py`). Whoever answers asks `of_user`
and `gone_in`; whoever writes calls `note_...` after the commit, with the revision it was given.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import zlib
from array import array
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from api.changes import UNCHANGED, Gone, UserChanges
from api.overlay_lists import Found
from api.overlay_logs import Exclusions, Told
from api.overlay_notes import NO_NOTES, Notes
from shared.errors import SnapshotUnavailable, VersionGone

if TYPE_CHECKING:
    from api.local_snapshot import LocalSnapshot
    from shared.snapshot.overlay import UserExclusion

NOTES = "notes"
MAX_NOTES_BYTES = 32 * 1024**2
NOBODY: frozenset[int] = frozenset()
MAX_STEP_IDS = 2_000


class _Inactive(NamedTuple):
    """All inactive restaurant ids, and what changed of them last: replaced, never changed."""

    ids: frozenset[int] = frozenset()
    change: int = 0
    """Counts the changes."""
    steps: tuple[tuple[int, frozenset[int]], ...] = ()
    """The last changes with the ids they concerned, MAX_STEP_IDS at most."""

    def changed_to(self, ids: frozenset[int]) -> _Inactive:
        change, ids_left = self.change + 1, MAX_STEP_IDS
        steps: list[tuple[int, frozenset[int]]] = []
        for step in ((change, ids ^ self.ids), *reversed(self.steps)):
            if (ids_left := ids_left - len(step[1])) < 0:
                break
            steps.insert(0, step)
        return _Inactive(ids, change, tuple(steps))

    def changed_since(self, change: int) -> frozenset[int] | None:
        """None where that is too long ago."""
        if not self.steps or self.steps[0][0] > change + 1:
            return None
        return NOBODY.union(*(ids for number, ids in self.steps if number > change))


class Overlay:
    """One of a process. `on_inactive` is called when the set of inactive restaurants changed."""

    def __init__(self, folder: Path) -> None:
        """folder: where records are kept on the disk."""
        self.folder = folder
        self.notes = Notes()
        self.exclusions: Exclusions | None = None
        """None until they are opened."""
        self._inactive = _Inactive()
        self.on_inactive: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    @property
    def inactive(self) -> frozenset[int]:
        """Restaurant ids."""
        return self._inactive.ids

    def open(self) -> Exclusions:
        """Reads what an earlier process left on the disk."""
        self.exclusions = Exclusions(self.folder)
        for path in self.folder.glob(f"{NOTES}.*"):
            with contextlib.suppress(OSError, ValueError):
                if path.stat().st_size <= MAX_NOTES_BYTES:
                    self.notes.restore(path.read_bytes())
            with contextlib.suppress(OSError):
                path.unlink()
        self.combine()
        return self.exclusions

    def close(self) -> None:
        """Leaves the notes to the next process: the worker may not have told of them by then."""
        if self.notes.count:
            with contextlib.suppress(OSError):
                self.folder.mkdir(parents=True, exist_ok=True)
                path = self.folder / f"{NOTES}.{secrets.token_hex(4)}"
                path.write_bytes(self.notes.dump())

    # --- what a write changed ---

    def note_order(self, user_id: int, restaurant_id: int, revision: int) -> None:
        self.notes.order(user_id, restaurant_id, revision)

    def note_orders(self, orders: Iterable[tuple[int, int, int]]) -> None:
        """orders: user, restaurant, revision; the oldest of a user first."""
        for user_id, restaurant_id, revision in orders:
            self.notes.order(user_id, restaurant_id, revision)

    def note_hidden(self, user_id: int, hidden: Iterable[int], revision: int) -> None:
        """hidden: all restaurants that the user hides from now on."""
        self.notes.hide(user_id, hidden, revision)

    def note_erased(self, user_id: int, revision: int) -> None:
        self.notes.erase(user_id, revision)

    def note_activity(self, restaurants: Iterable[tuple[int, bool, int]]) -> None:
        """restaurants: id, whether it is inactive from now on, revision."""
        noted = [self.notes.set_inactive(*each) for each in restaurants]
        if any(noted):
            self.combine()

    # --- what a record said ---

    def obeyed(self, told: Iterable[Told]) -> None:
        """Records of EXCLUSIONS have been taken: notes of what they say are dropped."""
        may_change = bool(self.notes.restaurants)
        for each in told:
            is_user = each.subject == "user"
            may_change |= each.is_new and not is_user
            came = self.notes.exclusion_came if is_user else self.notes.restaurant_came
            came(each.subject_id, each.revision, each.place, each.is_new)
        if may_change:
            self.combine()

    def forgotten(self, keys: Collection[int], contained_before: datetime) -> None:
        """Keys, as of `Record`, of which EXCLUSIONS says nothing, though it is whole: what was
        said or noted of them before an instant that every open snapshot contains is dropped."""
        if self.exclusions is not None:
            self.exclusions.drop(keys, before=int(contained_before.timestamp() * 1e6))
        self.notes.forget(keys, contained_before)
        self.combine()

    def combine(self) -> None:
        """Makes `inactive` anew from records and notes."""
        with self._lock:
            recorded = NOBODY if self.exclusions is None else self.exclusions.inactive
            noted = list(self.notes.restaurants.items())
            inactive = recorded.union(each for each, note in noted if note.is_inactive)
            inactive -= {each for each, note in noted if not note.is_inactive}
            if inactive == self._inactive.ids:
                return
            self._inactive = self._inactive.changed_to(inactive)
        self.on_inactive()

    # --- what requests ask ---

    def gone_in(self, snapshot: LocalSnapshot) -> Gone:
        """The restaurants of the snapshot that must not be shown.

        The overlay's thread asks after each change that it takes, so that a request finds it made,
        or looks at the ids of a few changes.
        """
        gone, inactive = snapshot.gone, self._inactive
        if gone.change != inactive.change:
            gone = snapshot.gone = _gone(snapshot, inactive)
        return gone

    def of_user(
        self, snapshot: LocalSnapshot, user_id: int, *, revision: int | None = None
    ) -> UserChanges:
        """revision: of the lists that a page began in; None for the newest.

        Raises VersionGone where those lists are no longer kept, and SnapshotUnavailable where they
        have not come yet.
        """
        gone = snapshot.gone
        if gone.change != self._inactive.change:
            gone = self.gone_in(snapshot)
        lists, exclusions, noted = snapshot.refreshed, self.exclusions, self.notes.users
        bridge = snapshot.bridge
        is_bridged = bridge is not None and bridge.may_concern(user_id)
        if (
            user_id not in noted
            and (exclusions is None or user_id not in exclusions.keys)
            and (lists is None or user_id not in lists.keys)
            and not (revision or is_bridged)
        ):
            return gone.of_users
        # Notes first: one that is dropped meanwhile is found again in a record.
        notes = noted.get(user_id, NO_NOTES)
        found = None if lists is None else lists.find(user_id)
        exclusion = None if exclusions is None else exclusions.of_user(user_id)
        is_noted = exclusion is not None or notes is not NO_NOTES or is_bridged
        if found is not None and not is_noted and revision is None:
            return UserChanges(found.user, False, (), NOBODY, gone.ordinals, found.mark + gone.tag)
        erased_at, hidden, is_void = notes.erased_revision, NOBODY, False
        is_reborn = exclusion is not None and exclusion.erased_at > 0
        if exclusion is not None and not notes.erased_revision:
            erased_at = exclusion.revision if exclusion.is_erased else 0
            hidden = exclusion.hidden
            is_void = _is_void(snapshot, exclusion)
        if notes.hidden is not None:
            hidden = notes.hidden_ids
        if found is not None and found.user.revision <= erased_at:
            found = None
        is_told = found is not None and found.user.revision >= notes.order_revision
        new = () if is_told else notes.orders  # else they are about to be dropped
        if is_bridged and not (erased_at or is_reborn):
            lacking = _bridged(snapshot, user_id, found)
            new += tuple(each for each in lacking if each not in new)
        if revision is not None and not erased_at:
            found = _of_revision(snapshot, user_id, revision, found)
        ordered: tuple[int, ...] = ()
        if new:
            ordinals = map(snapshot.restaurants.ordinal_of, new)
            ordered = tuple(each for each in ordinals if each is not None)
        mark = b"0" if found is None else found.mark
        is_erased = found is None and (erased_at > 0 or is_void)
        mark += b"e" if is_erased else b""
        mark += b".h" + _digest(sorted(hidden)) if hidden else b""
        mark += b".o" + _digest(new) if ordered else b""
        refreshed = None if found is None else found.user
        return UserChanges(refreshed, is_erased, ordered, hidden, gone.ordinals, mark + gone.tag)


def _is_void(snapshot: LocalSnapshot, exclusion: UserExclusion) -> bool:
    """Whether what the snapshot holds of the user is of an earlier one, who was erased."""
    since = snapshot.manifest.changes_since
    return exclusion.erased_at > 0 and (since is None or since.timestamp() <= exclusion.erased_at)


def _bridged(snapshot: LocalSnapshot, user_id: int, found: Found | None) -> list[int]:
    """Restaurants that newer lists in another version say were ordered, and this one does not."""
    assert snapshot.bridge is not None
    newer = snapshot.bridge.orders(user_id, after=0 if found is None else found.user.revision)
    if not newer:
        return []
    entry = snapshot.users.find(user_id) if found is None else None
    lists = snapshot.lists.read(entry) if entry is not None and entry.source else None
    if found is not None:
        lists = found.user.lists
    ids = snapshot.restaurants.ids
    own = set() if lists is None else {ids[ordinal] for ordinal in lists.order_again}
    return [each for each in newer if each not in own]


def _of_revision(
    snapshot: LocalSnapshot, user_id: int, revision: int, newest: Found | None
) -> Found | None:
    if revision == 0:
        return None  # the snapshot's own
    if newest is not None and newest.user.revision == revision:
        return newest
    if newest is None or newest.user.revision < revision:
        raise SnapshotUnavailable("the lists of this page have not arrived here yet")
    assert snapshot.refreshed is not None
    older = snapshot.refreshed.find_older(user_id, revision)
    if older is None:
        raise VersionGone("the lists of this page were made anew; begin again without cursor")
    return older


def _gone(snapshot: LocalSnapshot, inactive: _Inactive) -> Gone:
    old = snapshot.gone
    changed = inactive.changed_since(old.change)
    ordinal_of = snapshot.restaurants.ordinal_of
    if changed is None:
        found = {ordinal_of(each) for each in inactive.ids}
    else:
        found = {*old.ordinals, *(ordinal_of(each) for each in changed & inactive.ids)}
        found -= {ordinal_of(each) for each in changed - inactive.ids}
    ordinals = frozenset(each for each in found if each is not None)
    if ordinals == old.ordinals:
        return old._replace(change=inactive.change)
    if not ordinals:
        return Gone(inactive.change, ordinals, b"", UNCHANGED)
    ids = snapshot.restaurants.ids
    tag = b".x" + _digest(ids[ordinal] for ordinal in sorted(ordinals))
    return Gone(inactive.change, ordinals, tag, UserChanges(gone=ordinals, mark=b"0" + tag))


def _digest(ids: Iterable[int]) -> bytes:
    return b"%08x" % zlib.crc32(array("q", ids).tobytes())
