"""What holds beside a snapshot: for one user, and for the restaurants that closed since."""

from __future__ import annotations

from typing import NamedTuple

from shared.snapshot.overlay import RefreshedUser


class UserChanges(NamedTuple):
    """What a list of one user is made of and without, beside what the snapshot says."""

    refreshed: RefreshedUser | None = None
    """Stands in the place of the snapshot's record."""
    is_erased: bool = False
    """The snapshot's record must not be looked at."""
    ordered: tuple[int, ...] = ()
    """Ordinals of new orders that no list knows yet, the newest first."""
    hidden: frozenset[int] = frozenset()
    """Restaurant ids."""
    gone: frozenset[int] = frozenset()
    """Ordinals of restaurants that are inactive."""
    mark: bytes = b"0"
    """Of all this in an ETag: the user's own revision first."""

    @property
    def revision(self) -> int:
        """Of the lists; 0 for the snapshot's own."""
        return 0 if self.refreshed is None else self.refreshed.revision


class Gone(NamedTuple):
    """The restaurants of one snapshot that are inactive now."""

    change: int
    """The last change of the inactive ids that is contained; `Overlay` counts them."""
    ordinals: frozenset[int]
    tag: bytes
    """Empty where there are none."""
    of_users: UserChanges
    """Of a user of whom nothing else is to be said."""


UNCHANGED = UserChanges()
NOTHING_GONE = Gone(0, frozenset(), b"", UNCHANGED)
