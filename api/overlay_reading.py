"""Reads the overlay's logs: what came, beyond what is damaged, and at times all of EXCLUSIONS."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from api.overlay_files import key_of
from shared import overlay_metrics
from shared.errors import SnapshotDamaged
from shared.snapshot.overlay import EXCLUSIONS, WHOLE, Entry, OverlayReader, parse_key

READ_AT_ONCE = 200
PAUSE_SECONDS = 0.001  # between two answers of the store, for requests
OVERLAP_MICROSECONDS = 600 * 10**6
"""Looked back after an outage: the store may have another clock, or be another one."""
SWEEP_SECONDS = 300.0
SWEEP_AGAIN_SECONDS = 30.0  # where there was no room for all
SWEEP_READS = 10  # at a time

_LAST_PLACE = 2**62


class Read(NamedTuple):
    entries: list[Entry]
    known: int
    """The last place that was read before."""


class LogReader:
    """Used by one thread at a time."""

    def __init__(self, reader: OverlayReader, stop: threading.Event) -> None:
        self._reader = reader
        self._stop = stop
        self._after: dict[str, int] = {}
        self._known: dict[str, int] = {}
        self.passed_over = 0
        """How often there was something damaged."""

    def new_entries(self, log: str, last_place: int, *, looks_back: bool) -> Iterator[Read]:
        """last_place: that is known from an earlier process. What is taken from the iterator
        counts as read when the next is asked for. Raises StoreUnavailable, SnapshotDamaged."""
        after = self._after.get(log, last_place)
        if looks_back:
            after = max(0, after - OVERLAP_MICROSECONDS)
        while entries := self.read(log, after):
            yield Read(entries, self.known(log, last_place))
            after = self._after[log] = max(entry.place for entry in entries)
            self._known[log] = max(after, self.known(log, last_place))
            if self._stop.wait(PAUSE_SECONDS):
                return

    def known(self, log: str, last_place: int) -> int:
        """The last place that was read."""
        return max(self._known.get(log, 0), last_place)

    def read(self, log: str, after: int) -> list[Entry]:
        """What comes next, beyond records that cannot be read."""
        try:
            return self._reader.read(log, after=after, limit=READ_AT_ONCE)
        except SnapshotDamaged:
            overlay_metrics.refused(1)
            self.passed_over += 1
            return self._reader.read(log, after=self._beyond(log, after), limit=1)

    def has_at(self, log: str, key: str, place: int) -> bool:
        """Whether the key stands at that place."""
        found = self._reader.read(log, after=place - 1, limit=1)
        return [(entry.key, entry.place) for entry in found] == [(key, place)]

    def _beyond(self, log: str, after: int) -> int:
        """The least place that nothing damaged comes right after.

        Raises SnapshotDamaged where there is none: not a record is damaged, but the store.
        """
        step = 1
        while not self._is_readable(log, after + step - 1):
            if after + step > _LAST_PLACE:
                raise SnapshotDamaged("the overlay cannot be read")
            step *= 2
        low, high = after + step // 2 - 1, after + step - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._is_readable(log, middle) else (middle, high)
        return high

    def _is_readable(self, log: str, after: int) -> bool:
        try:
            self._reader.read(log, after=after, limit=1)
        except SnapshotDamaged:
            return False
        return True


class Sweep:
    """EXCLUSIONS from its first place, some reads at a time: keys go out of it without a word."""

    def __init__(self) -> None:
        self.ended = 0
        """How often it came to the end."""
        self._due_at = 0.0
        self._unseen: set[int] | None = None
        """None: it is not under way."""
        self._place = self._whole_at = self._passed_over = 0

    @property
    def is_under_way(self) -> bool:
        return self._unseen is not None

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._due_at

    def begin(self, logs: LogReader, keys: set[int]) -> None:
        """keys: all of which something is known, as of `Record`. The set is used up."""
        self._unseen = keys
        self._place = self._whole_at = 0
        self._passed_over = logs.passed_over

    def again(self) -> None:
        """Makes it due; one that is under way is given up."""
        self._unseen = None
        self._due_at = 0.0

    def due_within(self, seconds: float) -> None:
        self._due_at = min(self._due_at, time.monotonic() + seconds)

    def read(self, logs: LogReader, last_place: int) -> Iterator[Read]:
        """The next steps. Raises StoreUnavailable, SnapshotDamaged."""
        assert self._unseen is not None
        for _ in range(SWEEP_READS):
            entries = logs.read(EXCLUSIONS, self._place)
            if not entries:
                return
            yield Read(entries, logs.known(EXCLUSIONS, last_place))
            for entry in entries:
                self._place = max(self._place, entry.place)
                if entry.key == WHOLE:
                    self._whole_at = entry.place
                try:
                    subject, subject_id = parse_key(entry.key)
                except SnapshotDamaged:
                    continue
                self._unseen.discard(key_of(subject, subject_id))
            time.sleep(PAUSE_SECONDS)

    def end(self, logs: LogReader) -> set[int] | None:
        """The keys that were not there; none where not all of the log is. None: it is not at
        its end. Raises StoreUnavailable, SnapshotDamaged."""
        assert self._unseen is not None
        if logs.read(EXCLUSIONS, self._place):
            return None
        is_whole = (
            self._whole_at > 0
            and self._passed_over == logs.passed_over
            and logs.has_at(EXCLUSIONS, WHOLE, self._whole_at)
        )
        unseen, self._unseen = self._unseen, None
        self._due_at = time.monotonic() + SWEEP_SECONDS
        self.ended += 1
        return unseen if is_whole else set()
