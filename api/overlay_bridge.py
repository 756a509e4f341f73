"""Orders that lists of other versions know already, and those of the one that is served do not.

The worker tells a user's lists in the log of the version that is active. After a switch it is some
time behind in that of the new one: what was ordered shortly before a precompute ended, or all that
was ordered since the version that a roll-back leads to was left. Until its log has the revision
that another one has, the orders in which they differ are shown as new ones are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from api.overlay_lists import Found, RefreshedLists


class Abutment(NamedTuple):
    """Another version's lists; `ids` are the restaurants by their ordinals there."""

    lists: RefreshedLists
    ids: Sequence[int]


class Bridge:
    """From other versions to one. Asked by requests; replaced where there are other versions."""

    def __init__(self, others: Iterable[Abutment], *, contained_before: datetime | None) -> None:
        """contained_before: the version itself contains what was changed before."""
        self.others = tuple(others)
        self._contained = 0 if contained_before is None else contained_before.timestamp() * 1e6
        self._passed: set[int] = set()
        """Users of whom no other version knows more, nor will."""

    def may_concern(self, user_id: int) -> bool:
        if user_id in self._passed:
            return False
        return any(user_id in other.lists.keys for other in self.others)

    def orders(self, user_id: int, *, after: int) -> list[int]:
        """What the newest lists of a later revision than that have in `order_again`, as ids."""
        newest: Found | None = None
        ids: Sequence[int] = ()
        for other in self.others:
            # A place is an instant: what was told before is contained, whatever its revision.
            if user_id in other.lists.keys and other.lists.place(user_id) >= self._contained:
                found = other.lists.find(user_id)
                if found is not None and found.user.revision > after:
                    newest, ids, after = found, other.ids, found.user.revision
        if newest is None:
            self._passed.add(user_id)
            return []
        return [ids[ordinal] for ordinal in newest.user.lists.order_again]
