"""What a worker would tell, told by the test itself: records in a real overlay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from shared.settings import Settings
from shared.snapshot.format import (
    SOURCE_NONE,
    SOURCE_PERSONAL,
    SOURCE_PREFERENCES,
    UserLists,
    ordinal_width,
)
from shared.snapshot.manifest import Manifest
from shared.snapshot.opening import open_overlay
from shared.snapshot.overlay import (
    EXCLUSIONS,
    GONE,
    OverlayWriter,
    RefreshedUser,
    RestaurantExclusion,
    UserExclusion,
    encode_exclusion,
    encode_refreshed,
    restaurant_key,
    user_key,
)
from tests.services.snapshots import SnapshotSpec, UserSpec

_SOURCES = {"none": SOURCE_NONE, "personal": SOURCE_PERSONAL, "preferences": SOURCE_PREFERENCES}


def refreshed(spec: SnapshotSpec, user: UserSpec, revision: int) -> bytes:
    """A user's record in a snapshot of this specification."""
    ordinals = {each: place for place, each in enumerate(sorted(spec.restaurants))}
    places = {*spec.restaurants.values(), *(each.city for each in spec.users.values())} - {None}
    cities: list[str | None] = [None, *sorted(str(city) for city in places)]
    lists = UserLists(
        *(
            [ordinals[each] for each in ids]
            for ids in (user.for_you, user.discover, user.order_again)
        )
    )
    told = RefreshedUser(revision, _SOURCES[user.source], cities.index(user.city), lists)
    return encode_refreshed(told, width=ordinal_width(len(spec.restaurants)))


class Teller:
    """Appends records to the overlay that the API of these settings follows."""

    def __init__(self, writer: OverlayWriter) -> None:
        self.writer = writer

    def lists(
        self, manifest: Manifest, spec: SnapshotSpec, user_id: int, user: UserSpec, revision: int
    ) -> None:
        record = refreshed(spec, user, revision)
        self.writer.append(manifest.version, {user_key(user_id): record})

    def hides(self, user_id: int, hidden: Sequence[int], revision: int) -> None:
        self._exclude(user_id, UserExclusion(revision, False, frozenset(hidden)))

    def erased(self, user_id: int, revision: int) -> None:
        self._exclude(user_id, UserExclusion(revision, True, frozenset()))

    def closed(self, *restaurant_ids: int, revision: int = 1) -> None:
        record = encode_exclusion(RestaurantExclusion(revision))
        self.writer.append(EXCLUSIONS, {restaurant_key(each): record for each in restaurant_ids})

    def opened(self, *restaurant_ids: int) -> None:
        self.writer.append(EXCLUSIONS, {restaurant_key(each): GONE for each in restaurant_ids})

    def _exclude(self, user_id: int, exclusion: UserExclusion) -> None:
        self.writer.append(EXCLUSIONS, {user_key(user_id): encode_exclusion(exclusion)})


@contextmanager
def teller_of(settings: Settings) -> Iterator[Teller]:
    writer = open_overlay(settings)
    try:
        yield Teller(writer)
    finally:
        writer.close()


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.005)
