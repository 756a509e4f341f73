"""A snapshot as requests see it: mapped parts of the local copy, and what is prebuilt from them.

The uncompressed metadata and the binary parts are mapped read-only, users' lists are read by
`pread`, the compressed metadata stands in memory. A mapping stays good after its file is gone, so
a request that holds an old snapshot finishes on it. How a copy gets onto the disk is
`local_copies.py`'s, which version is served `follower.py`'s.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import orjson

from api.answers import HeaderField
from api.changes import NOTHING_GONE, Gone
from api.columns import Columns, columns_from, columns_of
from api.metadata_forms import MetadataContent
from api.overlay_bridge import Bridge
from api.overlay_lists import RefreshedLists
from api.selection import Selector
from api.shown import Shown, shown_instead, shown_whole, shown_without
from api.user_index import UserIndex
from shared.errors import SnapshotDamaged
from shared.snapshot import format as parts
from shared.snapshot.attributes import Attributes, decode_cuisines
from shared.snapshot.manifest import Manifest
from shared.snapshot.metadata_history import PART as HISTORY_PART
from shared.snapshot.metadata_history import read_metadata_history
from shared.snapshot.names import MAX_NAMES_BYTES, decode_names

REQUIRED_PARTS = (
    "restaurants",
    "users",
    "lists",
    "popular",
    "similar",
    "cities",
    "metadata",
    "metadata_index",
)
# Parts that the release before did not write; a copy that it made lacks them, too.
RANKING_PARTS = {"trending": parts.KIND_TRENDING, "new": parts.KIND_NEW}
COLUMN_PARTS = ("attributes", "cuisines")
YOUNG_PARTS = (*RANKING_PARTS, *COLUMN_PARTS, HISTORY_PART)
# In the order in which they are preferred.
ENCODED_PARTS = {b"zstd": "metadata.zst", b"br": "metadata.br", b"gzip": "metadata.gz"}

PARSED_AT_ONCE = 500  # restaurants


class LocalSnapshot:
    """A mapped version and what requests need of it prebuilt. Immutable once it is open.

    Beside it stands what changed since, each replaced in one step: `refreshed` are lists that the
    worker made anew, `bridge` leads to those of other versions, `gone` are the restaurants that are
    inactive now (ask `Overlay.gone_in`), `shown` the metadata with or without them.
    """

    refreshed: RefreshedLists | None = None
    bridge: Bridge | None = None
    gone: Gone = NOTHING_GONE

    def __init__(self, folder: Path, manifest: Manifest, *, public_vary: bytes) -> None:
        self.manifest = manifest
        self.version = manifest.version
        self.created_at = manifest.created_at.timestamp()
        self.restaurants = parts.Restaurants(_mapped(folder / "restaurants"))
        self.users = UserIndex(folder / "users")
        self.lists = parts.Lists(folder / "lists")
        self.popular = parts.Ragged(_mapped(folder / "popular"), kind=parts.KIND_POPULAR)
        self.rankings = {
            part: parts.Ragged(_mapped(folder / part), kind=kind)
            for part, kind in RANKING_PARTS.items()
            if (folder / part).exists()
        }
        self.similar = parts.Ragged(_mapped(folder / "similar"), kind=parts.KIND_SIMILAR)
        self.metadata_index = parts.MetadataIndex(_mapped(folder / "metadata_index"))
        self._metadata = _mapped(folder / "metadata")
        self.cities = _read_cities(folder / "cities")
        self._check_counts()
        self.columns = self._columns(folder)
        self.cuisines = self.columns.cuisines
        self._age: tuple[int, HeaderField] = (-1, (b"", b""))

        self.id_texts = [b"%d" % restaurant_id for restaurant_id in self.restaurants.ids]
        self.version_text = self.version.encode()
        self.created_at_text = manifest.as_dict()["created_at"].encode()
        history = folder / HISTORY_PART
        self.content = MetadataContent(
            manifest.metadata_version,
            self._metadata,
            self.metadata_index,
            self.restaurants,
            read_metadata_history(_mapped(history)) if history.exists() else None,
        )
        self._public_vary = public_vary
        self.whole = shown_whole(
            manifest, self.content, self._encoded(folder), public_vary=public_vary
        )
        """All that the snapshot holds."""
        self.shown: Shown = self.whole
        self._city_codes = {
            name.casefold(): code for code, name in reversed(list(enumerate(self.cities))) if name
        } | {name: code for code, name in enumerate(self.cities) if name}
        self.selector = Selector(
            self.columns,
            cities=self.restaurants.cities,
            popular=self.popular,
            city_code=self.city_code,
        )

    def age_seconds(self, now: float) -> int:
        """Whole seconds since it was created; never negative, whatever the clocks say."""
        return max(0, int(now - self.created_at))

    def age_field(self, now: float) -> HeaderField:
        """The age as a header field, made once a second."""
        second = int(now)
        if self._age[0] != second:
            self._age = second, (b"x-snapshot-age", b"%d" % self.age_seconds(now))
        return self._age[1]

    def projection(self, ordinal: int) -> memoryview:
        """The restaurant's JSON object as it stands in the metadata."""
        return self.content.projection(ordinal)

    def without(self, gone: frozenset[int], folder: Path) -> Shown:
        """What is to be shown without some ordinals; folder: as for `shown_without`."""
        return shown_without(
            gone,
            self.manifest,
            self.content,
            tuple(self.whole.metadata),
            public_vary=self._public_vary,
            folder=folder,
        )

    def instead(self, before: Shown | None) -> Shown:
        """What is to be shown where `without` fails. before: what was shown until now."""
        return shown_instead(self.whole, before, self.manifest, public_vary=self._public_vary)

    def city_code(self, name: str) -> int | None:
        """The code of a city by its exact name, else by its name in any case."""
        code = self._city_codes.get(name)
        return self._city_codes.get(name.casefold()) if code is None else code

    def _columns(self, folder: Path) -> Columns:
        if not all((folder / part).exists() for part in COLUMN_PARTS):
            return columns_from(self._cuisines_and_prices())
        width = self.restaurants.width
        attributes = Attributes(_mapped(folder / "attributes"), width=width)
        if attributes.count != self.restaurants.count:
            raise SnapshotDamaged("the parts speak of different numbers of restaurants")
        return columns_of(attributes, decode_cuisines((folder / "cuisines").read_bytes()))

    def _cuisines_and_prices(self) -> Iterator[tuple[str | None, int | None]]:
        """Each restaurant's, in the order of the ordinals, a piece of the metadata at a time."""
        count = self.restaurants.count
        try:
            for first in range(0, count, PARSED_AT_ONCE):
                last = min(first + PARSED_AT_ONCE, count) - 1
                start, stop = self.metadata_index.span(first)[0], self.metadata_index.span(last)[1]
                for restaurant in orjson.loads(b"[%b]" % bytes(self._metadata[start:stop])):
                    yield restaurant["cuisine_type"], restaurant["price_range"]
        except (ValueError, TypeError, KeyError):
            raise SnapshotDamaged("the metadata do not say what their index states") from None

    def _check_counts(self) -> None:
        count = self.restaurants.count
        if not count == self.metadata_index.count == self.similar.count:
            raise SnapshotDamaged("the parts speak of different numbers of restaurants")
        by_city = (self.popular, *self.rankings.values())
        if any(part.count != len(self.cities) for part in by_city):
            raise SnapshotDamaged("the parts speak of different numbers of cities")
        if len({self.restaurants.width, self.lists.width}) != 1:
            raise SnapshotDamaged("the parts disagree about the width of an ordinal")

    def _encoded(self, folder: Path) -> dict[bytes, bytes]:
        return {
            coding: (folder / part).read_bytes()
            for coding, part in ENCODED_PARTS.items()
            if part in self.manifest.bytes
        }


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise SnapshotDamaged(f"the part {path.name} is empty")
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
    return memoryview(mapped)


def _read_cities(path: Path) -> list[str | None]:
    if path.stat().st_size > MAX_NAMES_BYTES:
        raise SnapshotDamaged("the cities part is larger than any list of cities")
    return decode_names(path.read_bytes(), part="cities")
