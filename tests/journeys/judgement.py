"""The rules of a recorded history (`history.py`), against what the store held (`stored.py`).

What a write promises holds from its answer on at the replica that took it, and FRESH_SECONDS later
at others. A reading that began after another one's end came later; of readings that overlap
nothing is said. Lists are worked out here by the words of docs/api.md, from plain ids.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tests.journeys.history import LIMIT, Change, History, Reading
from tests.journeys.shop import LISTS
from tests.journeys.stored import NOBODYS, OwnLists, Stored, Version

FRESH_SECONDS = 5.0

_EVERYWHERE = 0
_OWN = ("personal", "preferences")


class Absence(NamedTuple):
    """A restaurant is not shown to a user, or, where the user is 0, to anybody; until `end`."""

    begin: Change
    end: Change | None

    def may_hold(self, reading: Reading) -> bool:
        if self.begin.began > reading.ended:
            return False
        return self.end is None or not _is_kept(self.end, reading)

    def must_hold(self, reading: Reading) -> bool:
        return _is_kept(self.begin, reading) and self.is_over_after(reading)

    def is_over_after(self, reading: Reading) -> bool:
        return self.end is None or self.end.began > reading.ended

    def may_have_traces(self, reading: Reading) -> bool:
        """Whether lists may still be those that were made without it."""
        if self.begin.began > reading.ended:
            return False
        return self.end is None or self.end.ended + FRESH_SECONDS > reading.began


class Judgement:
    def __init__(self, history: History, stored: Stored) -> None:
        self._history = history
        self._stored = stored
        self._absences = _absences(history)
        self._erased = {change.user_id: change for change in history.of("erase")}
        self._readings = sorted(history.readings, key=lambda reading: reading.began)
        self._missing: dict[int, frozenset[int]] = {}

    def complaints(self) -> list[str]:
        """What should not have been; empty where all was well."""
        failed = [each for each in self._readings if each.status != 200]
        if failed:
            return [f"failed: {each}" for each in failed]
        found = [*self._unequal(), *self._unexplained()]
        for rule in (self._shown, self._lost_orders, self._gone_back, self._unlisted, self._known):
            found += rule()
        return found

    # --- one answer ---

    def _unequal(self) -> Iterator[str]:
        """Answers with one tag that differ, whenever and wherever they were given."""
        first: dict[tuple[str, int, str], Reading] = {}
        for reading in self._readings:
            if reading.what != "orders":
                other = first.setdefault((reading.what, reading.subject, reading.etag), reading)
                if (other.content, other.source) != (reading.content, reading.source):
                    yield f"one tag, two answers: {other} | {reading}"

    def _unexplained(self) -> Iterator[str]:
        """Answers that are not one version's and one revision's, without what was excluded."""
        for reading in self._readings:
            if reading.what == "orders":
                continue
            version = self._stored.versions.get(reading.version)
            missing = None if version is None else self._explained(reading, version)
            if missing is None:
                yield f"of no version and revision: {reading}"
            else:
                self._missing[id(reading)] = missing

    def _explained(self, reading: Reading, version: Version) -> frozenset[int] | None:
        """What the answer lacks of the list that it is a part of; None where there is none."""
        if reading.what not in LISTS:
            rows: Mapping[str, Sequence[int]] = {
                "metadata": version.ids,
                "popular": version.popular[_EVERYWHERE],
                "similar": version.similar.get(reading.subject, ()),
            }
            shown = [(each, reading.source) for each in rows[reading.what]]
            return self._left_out(reading, shown)
        bases = self._stored.lists_of(
            reading.version, reading.subject, reading.revision, by=reading.ended
        )
        erased = self._erased.get(reading.subject)
        if reading.revision == 0 and erased is not None and erased.began < reading.ended:
            bases = [*bases, NOBODYS]
        found = [
            missing
            for base in bases
            for new in self._new_orders(reading, base)
            if (missing := self._left_out(reading, whole_list(version, base, reading.what, new)))
            is not None
        ]
        # What can be explained without an absence is no sign of one.
        return frozenset.intersection(*found) if found else None

    def _new_orders(self, reading: Reading, base: OwnLists) -> list[Sequence[int]]:
        """Orders that this replica may have shown before the worker knew them, the newest first:
        any that followed each other; and then those of newer lists in another version."""
        if reading.what == "for_you":
            return [()]
        taken = [
            change.restaurant_id
            for change in reversed(self._history.of("order", user_id=reading.subject))
            if change.replica == reading.replica and change.began < reading.ended
        ]
        runs = [taken[i:j] for i in range(len(taken)) for j in range(i + 1, len(taken) + 1)]
        newer = self._stored.newer_lists(
            reading.version, reading.subject, reading.revision, by=reading.ended
        )
        known = [
            [each for each in lists.order_again if each not in base.order_again] for lists in newer
        ]
        return [list(dict.fromkeys([*run, *of])) for run in [[], *runs] for of in [[], *known]]

    def _left_out(
        self, reading: Reading, whole: Sequence[tuple[int, str]]
    ) -> frozenset[int] | None:
        """What of a whole list the answer lacks; None where it is not that list, without what may
        have been excluded."""
        limit = len(whole) if reading.what == "metadata" else LIMIT
        ids, missing, place = reading.ids, set(), 0
        for each, source in whole:
            if place == limit:
                break
            if place < len(ids) and ids[place] == each:
                if place == 0 and source != reading.source:
                    return None
                place += 1
            elif any(absence.may_hold(reading) for absence in self._of(reading, each)):
                missing.add(each)
            else:
                return None
        return frozenset(missing) if place == len(ids) else None

    def _of(self, reading: Reading, restaurant_id: int) -> list[Absence]:
        """The absences that count for a reading."""
        user_id = reading.subject if reading.what in LISTS else 0
        everybodys = self._absences.get((0, restaurant_id), [])
        return everybodys + (self._absences.get((user_id, restaurant_id), []) if user_id else [])

    # --- answers one after the other ---

    def _shown(self) -> Iterator[str]:
        """Restaurants that were shown though they were excluded, or again after they were gone."""
        gone: dict[tuple[int, bool, Absence], float] = {}
        for reading in self._readings:
            for each in self._missing.get(id(reading), ()):
                why = [absence for absence in self._of(reading, each) if absence.may_hold(reading)]
                if len(why) == 1:
                    key = (reading.replica, reading.what == "metadata", why[0])
                    gone[key] = min(gone.get(key, reading.ended), reading.ended)
        for reading in self._readings:
            if reading.what == "orders":
                continue
            is_metadata = reading.what == "metadata"
            for each in reading.ids:
                for absence in self._of(reading, each):
                    # Metadata are cut anew for all their readers, which takes a moment.
                    late = FRESH_SECONDS if is_metadata else 0.0
                    if absence.must_hold(reading._replace(began=reading.began - late)):
                        yield f"{each} shown after {absence.begin}: {reading}"
                    since = gone.get((reading.replica, is_metadata, absence))
                    is_later = since is not None and since <= reading.began
                    if is_later and absence.is_over_after(reading):
                        yield f"{each} came back after {absence.begin}: {reading}"

    def _lost_orders(self) -> Iterator[str]:
        """Confirmed orders that lists do not know, or no longer."""
        seen: dict[tuple[int, int, int], list[Reading]] = defaultdict(list)
        for reading in self._readings:
            if (
                reading.what not in ("order_again", "discover")
                or reading.version not in self._stored.versions
            ):
                continue
            ids = set(reading.ids)
            version = self._stored.versions[reading.version]
            for order in self._history.of("order", user_id=reading.subject):
                each = order.restaurant_id
                key = (reading.replica, reading.subject, each)
                if reading.what == "order_again" and each in ids and order.began < reading.ended:
                    seen[key].append(reading)
                if each not in version.cities or self._is_excused(reading, each):
                    continue
                is_known = each in ids if reading.what == "order_again" else each not in ids
                earlier = (other for other in seen[key] if other.ended <= reading.began)
                is_due = _is_kept(order, reading) or any(
                    other.version <= reading.version for other in earlier
                )
                if is_due and not is_known:
                    yield f"{each} of {order} not known: {reading}"

    def _is_excused(self, reading: Reading, restaurant_id: int) -> bool:
        erased = self._erased.get(reading.subject)
        if erased is not None and erased.began < reading.ended:
            return True
        return any(each.may_have_traces(reading) for each in self._of(reading, restaurant_id))

    def _is_moved(self, reading: Reading) -> bool:
        """Whether an operator has just chosen a version: the worker brings it up to date, and only
        then lists know again what was ordered since it was left."""
        return any(
            change.began < reading.ended and change.ended + FRESH_SECONDS > reading.began
            for change in self._history.of("activate")
        )

    def _gone_back(self) -> Iterator[str]:
        """Revisions of a user's lists that a replica had passed already, in the same version."""
        groups: dict[tuple[int, int, str], list[Reading]] = defaultdict(list)
        for reading in self._readings:
            erased = self._erased.get(reading.subject)
            is_whole = erased is None or erased.began > reading.ended
            if reading.what in LISTS and is_whole:
                groups[reading.replica, reading.subject, reading.version].append(reading)
        for group in groups.values():
            by_end = sorted(group, key=lambda reading: reading.ended)
            newest, place = 0, 0
            for reading in group:
                while by_end[place].ended <= reading.began:
                    newest = max(newest, by_end[place].revision)
                    place += 1
                if reading.revision < newest:
                    yield f"went back from revision {newest}: {reading}"

    # --- users ---

    def _unlisted(self) -> Iterator[str]:
        """Orders that the database confirmed and does not have, or has of an erased user."""
        for reading in self._readings:
            if reading.what != "orders":
                continue
            ids, erased = reading.ids, self._erased.get(reading.subject)
            if erased is not None and erased.began < reading.ended:
                if ids and erased.ended <= reading.began:
                    yield f"orders after {erased}: {reading}"
                continue
            for order in self._history.of("order", user_id=reading.subject):
                if order.ended <= reading.began and order.restaurant_id not in ids:
                    yield f"{order} not listed: {reading}"

    def _known(self) -> Iterator[str]:
        """Lists of erased users, and of new ones who said what they like and are not heard."""
        forgotten: dict[tuple[int, int], float] = {}
        for reading in self._readings:
            if reading.what not in LISTS:
                continue
            is_own = reading.source in _OWN or (reading.what == "order_again" and reading.ids)
            if (erased := self._erased.get(reading.subject)) is not None:
                key = (reading.replica, reading.subject)
                if not is_own and reading.what != "discover" and erased.began < reading.ended:
                    forgotten[key] = min(forgotten.get(key, reading.ended), reading.ended)
                is_due = forgotten.get(key, reading.began + 1) <= reading.began
                if is_own and (is_due or _is_kept(erased, reading)):
                    yield f"known after {erased}: {reading}"
            said = self._history.of("prefer", user_id=reading.subject)
            ordered = self._history.of("order", user_id=reading.subject)
            if said and reading.what == "for_you" and not self._is_moved(reading):
                if any(each.ended + FRESH_SECONDS <= reading.began for each in ordered):
                    due = "personal"
                elif any(order.began < reading.ended for order in ordered):
                    due = reading.source
                else:
                    is_due = said[0].ended + FRESH_SECONDS <= reading.began
                    due = "preferences" if is_due else reading.source
                if reading.source != due:
                    yield f"not from {due}: {reading}"


def whole_list(
    version: Version, base: OwnLists, what: str, new: Sequence[int]
) -> list[tuple[int, str]]:
    """A user's list to its end, with what each restaurant is from. new: orders that it lacks."""
    new = [each for each in new if each in version.cities]
    if what == "order_again":
        own = [(each, base.source) for each in base.order_again if each not in new]
        return [(each, "personal") for each in new] + own
    head: Sequence[int] = base.for_you
    ordered: set[int] = set()
    if what == "discover":
        head, ordered = base.discover, {*base.order_again, *new}
    found = {each: base.source for each in head if what == "for_you" or each not in new}
    if base.city:
        for each in version.popular[base.city]:
            if each not in ordered:
                found.setdefault(each, "popular-city")
    for each in version.popular[_EVERYWHERE]:
        if each not in ordered:
            found.setdefault(each, "popular")
    return list(found.items())


def _is_kept(change: Change, reading: Reading) -> bool:
    """Whether a reading must know of a change."""
    late = 0.0 if change.replica == reading.replica else FRESH_SECONDS
    return change.ended + late <= reading.began


def _absences(history: History) -> dict[tuple[int, int], list[Absence]]:
    """By user, 0 for everybody, and restaurant."""
    found: dict[tuple[int, int], list[Absence]] = defaultdict(list)
    for change in sorted(history.changes, key=lambda each: each.ended):
        of = found[change.user_id, change.restaurant_id]
        is_open = bool(of) and of[-1].end is None
        if change.kind in ("hide", "close") and not is_open:
            of.append(Absence(change, None))
        elif change.kind in ("unhide", "open") and is_open:
            of[-1] = of[-1]._replace(end=change)
    return dict(found)
