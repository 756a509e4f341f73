"""The lists that are the same for everyone, and what happens where a snapshot lacks them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from shared.settings import Settings
from shared.snapshot.manifest import Manifest
from shared.snapshot.store import SnapshotStore
from tests.api.running import Api, running
from tests.services.snapshots import SnapshotSpec, publish_snapshot

# No test changes what the API holds: all ask the same one, in its loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

TOWN = SnapshotSpec(
    restaurants={1: "Lima", 2: "Lima", 3: "Lima", 4: "Lima", 5: "Köln", 6: "Köln", 7: None},
    popular=(7, 6, 5, 4, 3, 2, 1),
    trending=(2, 5),
    new=(3, 5, 1, 2, 7, 4, 6),
    cuisines={1: "Thai|Vegan", 2: "thai", 3: "Pizza", 4: "Vegan | Thai ", 5: "Thai", 7: None},
)
STANDING = TOWN


@pytest.fixture
def town(standing_api: Api) -> Api:
    return standing_api


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("popular", [7, 6, 5, 4, 3, 2, 1]),
        ("trending", [2, 5, 7, 6, 4, 3, 1]),
        ("trending?limit=3", [2, 5, 7]),
        ("trending?city=lima", [2, 4, 3, 1]),
        ("trending?city=lima&limit=1", [2]),
        ("new", [3, 5, 1, 2, 7, 4, 6]),
        ("new?city=K%C3%96LN", [5, 6]),
        ("new?city=Atlantis", []),
        ("popular?cuisine=Thai", [5, 4, 2, 1]),
        ("popular?cuisine=%20vegan", [4, 1]),
        ("trending?cuisine=THAI", [2, 5, 4, 1]),
        ("new?cuisine=thai&city=Lima", [1, 2, 4]),
        ("new?cuisine=thai&city=Lima&limit=2", [1, 2]),
        ("new?cuisine=Ramen", [6]),
        ("popular?cuisine=Thai%7CVegan", []),
        ("popular?cuisine=%7C", []),
        ("popular?cuisine=Tha", []),
        ("popular?cuisine=thai&city=Atlantis", []),
        ("popular?cuisine=%27%20OR%201=1--", []),
    ],
)
async def test_what_a_list_holds(town: Api, path: str, expected: list[int]) -> None:
    response = await town.client.get(f"/api/lists/{path}")
    assert response.status_code == 200
    assert response.json() == expected


@pytest.mark.parametrize("name", ["best", "popular2", "Popular", "%00", "%ED%A0%80", "x" * 5_000])
async def test_there_are_no_other_lists(town: Api, name: str) -> None:
    for call in (town.client.get, town.client.head):
        response = await call(f"/api/lists/{name}")
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("name", ["popular", "trending", "new"])
@pytest.mark.parametrize("query", ["cuisine=%00", f"cuisine={'x' * 201}", "limit=0", "sort=name"])
async def test_values_are_read_strictly(town: Api, name: str, query: str) -> None:
    response = await town.client.get(f"/api/lists/{name}?{query}")
    assert response.status_code == 422


async def test_each_list_has_a_tag_of_its_own_and_the_cache_rules_of_the_metadata(
    town: Api,
) -> None:
    metadata = await town.client.get("/api/restaurants/metadata")
    paths = ("popular", "trending", "new", "new?city=Lima", "new?cuisine=Thai", "new?cuisine=Vegan")
    tags = set()
    for path in paths:
        whole = await town.client.get(f"/api/lists/{path}")
        for name in ("cache-control", "vary", "x-snapshot-version", "x-metadata-version"):
            assert whole.headers[name] == metadata.headers[name]
        tags.add(whole.headers["etag"])
        headers = {"If-None-Match": f'W/{whole.headers["etag"]}, "x"'}
        again = await town.client.get(f"/api/lists/{path}", headers=headers)
        assert (again.status_code, again.content) == (304, b"")
        head = await town.client.head(f"/api/lists/{path}")
        assert head.headers["content-length"] == str(len(whole.content))
        assert head.content == b""
    assert len(tags) == len(paths)


async def test_a_snapshot_of_the_release_before_has_the_popular_ones(
    settings: Settings, store: SnapshotStore
) -> None:
    def as_before(manifest: Manifest) -> Manifest:
        kept = {
            name: size for name, size in manifest.bytes.items() if name not in ("trending", "new")
        }
        sums = {name: manifest.checksums[name] for name in kept}
        return replace(manifest, bytes=kept, checksums=sums)

    manifest = publish_snapshot(store, TOWN, change_manifest=as_before)
    async with running(settings) as api:
        await api.serves(manifest.version)
        for name in ("popular", "trending", "new"):
            response = await api.client.get(f"/api/lists/{name}?city=Lima&cuisine=thai")
            assert response.json() == [4, 2, 1]


async def test_a_copy_that_the_release_before_made_is_served(
    settings: Settings, store: SnapshotStore
) -> None:
    manifest = publish_snapshot(store, TOWN)
    async with running(settings) as api:
        await api.serves(manifest.version)
        full = await api.client.get("/api/lists/new")
    copy = settings.snapshots_dir / manifest.version
    for part in ("trending", "new"):
        (copy / part).unlink()
    store.close()
    shutil.rmtree(settings.data_dir / "store")
    (settings.data_dir / "store").write_text("out of order: only the copy is left")
    async with running(settings) as api:
        await api.serves(manifest.version)
        response = await api.client.get("/api/lists/new")
        assert response.json() == list(TOWN.popular or ())
        assert response.headers["etag"] != full.headers["etag"]
