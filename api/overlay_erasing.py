"""Erased users on the own disk: what lists of them are there goes, and soon its bytes do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

from api.overlay_lists import RefreshedLists
from api.overlay_logs import Erased, Exclusions
from api.overlay_records import RecordsFull

CLEAN_SECONDS = 5.0  # between two times that files are written anew


def erase(lists: Iterable[RefreshedLists], erased: Iterable[Erased]) -> None:
    users = list(erased)
    for each in lists if users else ():
        with contextlib.suppress(RecordsFull):
            each.erase(users)


def known_erased(lists: RefreshedLists, exclusions: Exclusions) -> list[Erased]:
    """Of those of whom there are lists."""
    found = map(exclusions.erased, lists.keys & exclusions.keys)
    return [each for each in found if each is not None]


class Cleaner:
    """Writes files anew, a rest after each time."""

    def __init__(self) -> None:
        self._cleaned_at = -CLEAN_SECONDS

    def clean(self, kept: Iterable[Exclusions | RefreshedLists]) -> None:
        """Raises OSError, and tries again another time."""
        now = time.monotonic()
        unclean = [each for each in kept if each.is_unclean]
        if not unclean or now - self._cleaned_at < CLEAN_SECONDS:
            return
        self._cleaned_at = now
        for each in unclean:
            each.clean()
