"""Snapshots for tests: built from plain ids by the real writers, published by a real store."""

from __future__ import annotations

import gzip
import math
import tempfile
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import brotli
import orjson
import zstandard

from shared.snapshot import attributes
from shared.snapshot import format as parts
from shared.snapshot.manifest import Manifest, new_version
from shared.snapshot.metadata_document import TAIL, ContentHash, document_head
from shared.snapshot.parts import describe_parts
from shared.snapshot.store import SnapshotStore
from worker.metadata_history import write_history

_SOURCES = {
    "none": parts.SOURCE_NONE,
    "personal": parts.SOURCE_PERSONAL,
    "preferences": parts.SOURCE_PREFERENCES,
}


@dataclass(frozen=True, slots=True)
class UserSpec:
    """What a snapshot holds of one user: ids, best first."""

    source: Literal["none", "personal", "preferences"] = "none"
    city: str | None = None
    for_you: Sequence[int] = ()
    discover: Sequence[int] = ()
    order_again: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class SnapshotSpec:
    """`restaurants`: city by id. `popular`, `trending`, `new`: ids, best first; popular ones are
    ascending by default."""

    restaurants: Mapping[int, str | None]
    users: Mapping[int, UserSpec] = field(default_factory=dict)
    popular: Sequence[int] | None = None
    trending: Sequence[int] = ()
    new: Sequence[int] = ()
    similar: Mapping[int, Sequence[int]] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    cuisines: Mapping[int, str | None] = field(default_factory=dict)
    price_ranges: Mapping[int, int | None] = field(default_factory=dict)
    places: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    """Latitude and longitude by id."""


def projection(spec: SnapshotSpec, restaurant_id: int) -> dict[str, Any]:
    """What the metadata of this snapshot say of a restaurant."""
    return {
        "id": restaurant_id,
        "name": spec.names.get(restaurant_id, f"Restaurant {restaurant_id}"),
        "cuisine_type": spec.cuisines.get(restaurant_id, "Ramen"),
        "rating": 4.5,
        "price_range": spec.price_ranges.get(restaurant_id, 2),
        "city": spec.restaurants[restaurant_id],
        "image_url": None,
    }


def publish_snapshot(
    store: SnapshotStore,
    spec: SnapshotSpec,
    *,
    created_at: datetime | None = None,
    activate: bool = True,
    with_history: bool = False,
    change_manifest: Callable[[Manifest], Manifest] = lambda manifest: manifest,
) -> Manifest:
    """Publishes a snapshot, active unless told otherwise, and returns its manifest.

    `with_history` also writes the part `metadata_history`, as a precompute does.
    `change_manifest` may leave parts out, or state what is not so.
    """
    now = created_at or datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="tastematch-parts-") as name:
        folder = Path(name) / "parts"
        folder.mkdir()
        metadata_version = write_parts(folder, spec)
        if with_history:
            write_history(store, folder, version=metadata_version, scratch=Path(name), now=now)
        sizes, checksums = describe_parts(folder)
        manifest = change_manifest(
            Manifest(
                version=new_version(now, after=store.newest_version()),
                created_at=now,
                data_as_of=now,
                algorithm={"name": "test"},
                counts={
                    "restaurants": len(spec.restaurants),
                    "users": len(spec.users),
                    "interactions": 0,
                    "skipped": {},
                },
                bytes=sizes,
                checksums=checksums,
                metadata_version=metadata_version,
                stages=[],
                peak_rss_mb=1.0,
            )
        )
        paths = {part: folder / part for part in manifest.bytes}
        store.publish(
            manifest, paths, expected_generation=store.pointer().generation, activate=activate
        )
    return manifest


def write_parts(folder: Path, spec: SnapshotSpec) -> str:
    """Writes every part of the snapshot into the folder; returns the metadata's version."""
    ids = sorted(spec.restaurants)
    ordinals = {restaurant_id: place for place, restaurant_id in enumerate(ids)}
    width = parts.ordinal_width(len(ids))
    places = {*spec.restaurants.values(), *(user.city for user in spec.users.values())} - {None}
    cities: list[str | None] = [None, *sorted(city for city in places if city is not None)]
    codes = {city: code for code, city in enumerate(cities)}

    with (folder / "restaurants").open("wb") as file:
        parts.write_restaurants(
            file,
            ids=array("q", ids),
            cities=array("H", [codes[spec.restaurants[i]] for i in ids]),
        )
    (folder / "cities").write_bytes(orjson.dumps(cities))
    _write_attributes(folder, spec, ids)

    def packed(chosen: Iterable[int]) -> bytes:
        return array("H" if width == 2 else "I", [ordinals[i] for i in chosen]).tobytes()

    def write_rows(name: str, kind: int, rows: list[Sequence[int]]) -> None:
        offsets = array("I", [0])
        for row in rows:
            offsets.append(offsets[-1] + len(row))
        joined = b"".join(packed(row) for row in rows)
        with (folder / name).open("wb") as file:
            parts.write_ragged(file, kind=kind, offsets=offsets, ordinals=joined, width=width)

    popular = list(ids if spec.popular is None else spec.popular)
    for name, kind, ranked in (
        ("popular", parts.KIND_POPULAR, popular),
        ("trending", parts.KIND_TRENDING, spec.trending),
        ("new", parts.KIND_NEW, spec.new),
    ):
        by_city = [[i for i in ranked if spec.restaurants[i] == city] for city in cities[1:]]
        write_rows(name, kind, [ranked, *by_city])
    write_rows("similar", parts.KIND_SIMILAR, [spec.similar.get(i, ()) for i in ids])
    _write_users(folder, spec, width=width, codes=codes, packed=packed)
    return _write_metadata(folder, spec, ids)


def _write_attributes(folder: Path, spec: SnapshotSpec, ids: Sequence[int]) -> None:
    shown = [projection(spec, restaurant_id) for restaurant_id in ids]
    names: list[str | None] = [None, *sorted({r["cuisine_type"] for r in shown} - {None})]
    places = [spec.places.get(restaurant_id, (math.nan, math.nan)) for restaurant_id in ids]
    northwards = sorted(
        range(len(ids)), key=lambda o: math.inf if math.isnan(places[o][0]) else places[o][0]
    )
    width = parts.ordinal_width(len(ids))
    with (folder / "attributes").open("wb") as file:
        attributes.write_attributes(
            file,
            cuisines=array("I", [names.index(r["cuisine_type"]) for r in shown]),
            price_ranges=bytes(r["price_range"] or 0 for r in shown),
            latitudes=array("f", [latitude for latitude, _ in places]),
            longitudes=array("f", [longitude for _, longitude in places]),
            by_latitude=array("H" if width == 2 else "I", northwards),
            width=width,
        )
    (folder / "cuisines").write_bytes(attributes.encode_cuisines(names))


def _write_users(
    folder: Path,
    spec: SnapshotSpec,
    *,
    width: int,
    codes: Mapping[str | None, int],
    packed: Callable[[Iterable[int]], bytes],
) -> None:
    user_ids = sorted(spec.users)
    offsets = array("I", [0])
    with (folder / "lists").open("wb") as file:
        writer = parts.ListsWriter(file, users=len(user_ids), width=width)
        for user_id in user_ids:
            user = spec.users[user_id]
            lists = (user.for_you, user.discover, user.order_again)
            offsets.append(writer.append(*map(packed, lists)))
    with (folder / "users").open("wb") as file:
        parts.write_users(
            file,
            ids=array("q", user_ids),
            offsets=offsets,
            cities=array("H", [codes[spec.users[i].city] for i in user_ids]),
            sources=array("B", [_SOURCES[spec.users[i].source] for i in user_ids]),
        )


def _write_metadata(folder: Path, spec: SnapshotSpec, ids: Sequence[int]) -> str:
    items = [orjson.dumps(projection(spec, restaurant_id)) for restaurant_id in ids]
    content = ContentHash()
    for item in items:
        content.add(item)
    head = document_head(content.version)
    body = head + b",".join(items) + TAIL
    offsets = array("I", [len(head)])
    for item in items:
        offsets.append(offsets[-1] + len(item) + 1)
    (folder / "metadata").write_bytes(body)
    (folder / "metadata.gz").write_bytes(gzip.compress(body, mtime=0))
    (folder / "metadata.br").write_bytes(brotli.compress(body, quality=5))
    (folder / "metadata.zst").write_bytes(zstandard.compress(body))
    with (folder / "metadata_index").open("wb") as file:
        parts.write_metadata_index(file, offsets=offsets)
    return content.version
