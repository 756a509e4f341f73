"""The metadata's other forms over HTTP: what changed since a version, and chosen restaurants."""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest

from api import metadata_forms
from api.local_copies import fetch
from shared.settings import Settings
from shared.snapshot.metadata_history import PART
from shared.snapshot.store import SnapshotStore
from tests.api.running import BEYOND_JAVASCRIPT, OSAKA, SPEC, Api, running
from tests.services.snapshots import SnapshotSpec, projection, publish_snapshot

PATH = "/api/restaurants/metadata"
CACHE = "public, max-age=60, stale-while-revalidate=3600, stale-if-error=86400"
CHANGED = replace(SPEC, names={OSAKA[2]: "Renamed", BEYOND_JAVASCRIPT: "Ünï"})
WITHOUT = replace(
    CHANGED,
    restaurants={i: city for i, city in SPEC.restaurants.items() if i != 102},
    users={},
    popular=None,
    similar={},
)


@pytest.fixture(autouse=True)
def plain(request: pytest.FixtureRequest) -> None:
    """Requests of these tests name the codings they accept by themselves."""
    if "api" in request.fixturenames:
        del request.getfixturevalue("api").client.headers["accept-encoding"]


async def published(api: Api, store: SnapshotStore, spec: SnapshotSpec) -> str:
    """Publishes a snapshot with its history; returns the version of the metadata it serves."""
    manifest = publish_snapshot(store, spec, with_history=True)
    await api.serves(manifest.version)
    return manifest.metadata_version


async def document(api: Api, query: str) -> dict[str, Any]:
    response = await api.client.get(f"{PATH}?{query}")
    assert response.status_code == 200
    found: dict[str, Any] = orjson.loads(response.content)
    return found


async def test_since_an_older_version_gives_what_changed_and_what_is_gone(
    api: Api, store: SnapshotStore
) -> None:
    versions = [await published(api, store, spec) for spec in (SPEC, CHANGED, WITHOUT)]
    assert await document(api, f"since={versions[0]}") == {
        "kind": "delta",
        "from": versions[0],
        "version": versions[2],
        "changed": [projection(CHANGED, i) for i in (OSAKA[2], BEYOND_JAVASCRIPT)],
        "removed": [102],
    }
    assert await document(api, f"since={versions[1]}") == {
        "kind": "delta",
        "from": versions[1],
        "version": versions[2],
        "changed": [],
        "removed": [102],
    }


async def test_since_the_newest_version_nothing_changed(api: Api) -> None:
    """Also where the snapshot has no history, as those of the release before."""
    manifest = api.resources.snapshots.require_active().manifest
    version = manifest.metadata_version
    assert PART not in manifest.bytes
    assert await document(api, f"since={version}") == {
        "kind": "delta",
        "from": version,
        "version": version,
        "changed": [],
        "removed": [],
    }


async def test_a_copy_of_the_release_before_is_served_without_its_history(
    settings: Settings, store: SnapshotStore
) -> None:
    old, new = (publish_snapshot(store, spec, with_history=True) for spec in (SPEC, CHANGED))
    copy = fetch(store, new, settings.snapshots_dir)
    (copy / PART).unlink()
    async with running(settings) as api:
        await api.serves(new.version)
        assert (await document(api, f"since={old.metadata_version}"))["kind"] == "full"
        assert (await document(api, f"since={new.metadata_version}"))["kind"] == "delta"


@pytest.mark.parametrize("since", ["0123456789abcdef", "", "x", "W/%22x%22", "0" * 5_000, "%C3%A9"])
async def test_since_an_unknown_version_gives_the_full_form(
    api: Api, store: SnapshotStore, since: str
) -> None:
    await published(api, store, CHANGED)
    full = await api.client.get(PATH)
    response = await api.client.get(f"{PATH}?since={since}")
    assert response.content == full.content
    assert response.headers["etag"] == full.headers["etag"]


async def test_a_delta_of_more_than_half_is_the_full_form(api: Api, store: SnapshotStore) -> None:
    base = await published(api, store, SPEC)
    for share, kind in ((0.4, "delta"), (0.6, "full")):
        renamed = list(SPEC.restaurants)[: int(len(SPEC.restaurants) * share)]
        await published(api, store, replace(SPEC, names=dict.fromkeys(renamed, "Renamed")))
        for _ in range(2):
            assert (await document(api, f"since={base}"))["kind"] == kind


async def test_a_delta_is_coded_with_gzip_or_not_at_all(api: Api, store: SnapshotStore) -> None:
    base = await published(api, store, SPEC)
    await published(api, store, CHANGED)
    plain = (await api.client.get(f"{PATH}?since={base}")).content
    etags = set()
    for accepted, coding, kind in (
        ("gzip, deflate, br, zstd", "gzip", "delta"),
        ("gzip;q=0.2, identity;q=0.1", "gzip", "delta"),
        ("identity;q=0, *", "gzip", "delta"),
        ("br, zstd", "identity", "delta"),
        ("gzip;q=0", "identity", "delta"),
        ("", "identity", "delta"),
        ("br, identity;q=0", "br", "full"),
    ):
        url = f"{PATH}?since={base}"
        response = await api.client.get(url, headers={"Accept-Encoding": accepted})
        assert response.status_code == 200
        assert response.headers.get("content-encoding", "identity") == coding
        assert response.json()["kind"] == kind
        assert "Accept-Encoding" in response.headers["vary"]
        if kind == "delta":
            assert response.content == plain
            etags.add(response.headers["etag"])
    assert len(etags) == 2
    refused = await api.client.get(f"{PATH}?since={base}", headers={"Accept-Encoding": "*;q=0"})
    assert refused.status_code == 406


@pytest.mark.parametrize(
    ("accepted", "changed", "kind"),
    [
        ("gzip", 1, "delta"),
        ("gzip", 20, "full"),  # which is smaller as it is sent
        ("gzip, identity;q=0", 1, "full"),
        ("identity", 20, "delta"),
        ("br", 20, "delta"),
    ],
)
async def test_a_delta_too_large_to_be_coded_is_sent_plain_where_that_is_smaller(
    api: Api,
    store: SnapshotStore,
    monkeypatch: pytest.MonkeyPatch,
    accepted: str,
    changed: int,
    kind: str,
) -> None:
    monkeypatch.setattr(metadata_forms, "MAX_CODED_BYTES", 100)
    base = await published(api, store, SPEC)
    names = dict.fromkeys(list(SPEC.restaurants)[:changed], "Renamed")
    await published(api, store, replace(SPEC, names=names))
    for _ in range(2):
        response = await api.client.get(
            f"{PATH}?since={base}", headers={"Accept-Encoding": accepted}
        )
        assert response.json()["kind"] == kind
        assert ("content-encoding" in response.headers) == (kind == "full")


async def test_what_is_remembered_is_bounded(
    api: Api, store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_forms, "MAX_REMEMBERED_BYTES", 600)
    versions = [
        await published(api, store, replace(SPEC, names={OSAKA[0]: name})) for name in "ABCDEF"
    ]
    forms = api.resources.snapshots.require_active().shown.forms
    for _ in range(2):
        for version in versions[:-1]:
            changed = (await document(api, f"since={version}"))["changed"]
            assert [restaurant["name"] for restaurant in changed] == ["F"]
    assert 0 < sum(len(made.body) for made in forms._deltas.values()) <= 600


async def raw_body(client: httpx.AsyncClient, url: str) -> bytes:
    async with client.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as response:
        return b"".join([piece async for piece in response.aiter_raw()])


async def test_a_subset_is_coded_too(api: Api) -> None:
    url = f"{PATH}?ids={','.join(map(str, OSAKA))}"
    whole = (await api.client.get(url)).content
    raw = await raw_body(api.client, url)
    assert gzip.decompress(raw) == whole
    assert len(raw) < len(whole) / 4
    refused = await api.client.get(url, headers={"Accept-Encoding": "br, identity;q=0"})
    assert refused.status_code == 406


@pytest.mark.parametrize("query", ["since={}", "ids=101,105"])
async def test_headers_validators_and_head(api: Api, store: SnapshotStore, query: str) -> None:
    base = await published(api, store, SPEC)
    newest = await published(api, store, CHANGED)
    url = f"{PATH}?{query.format(base)}"
    for coding in ("gzip", "identity"):
        headers = {"Accept-Encoding": coding}
        whole = await api.client.get(url, headers=headers)
        assert whole.headers["cache-control"] == CACHE
        assert whole.headers["vary"] == "Accept-Encoding, Origin"
        assert whole.headers["x-metadata-version"] == newest
        assert whole.headers["content-type"] == "application/json"
        assert whole.headers["etag"].startswith('"')
        for form in ("{}", "W/{}", '"a", {}', "*"):
            headers["If-None-Match"] = form.format(whole.headers["etag"])
            again = await api.client.get(url, headers=headers)
            assert (again.status_code, again.content) == (304, b"")
            for name in ("etag", "cache-control", "vary", "x-metadata-version"):
                assert again.headers[name] == whole.headers[name]
        head = await api.client.head(url, headers={"Accept-Encoding": coding})
        assert head.content == b""
        for name in ("etag", "content-length", "vary", "cache-control"):
            assert head.headers[name] == whole.headers[name]
        other = await api.client.get(
            f"{PATH}?ids=103", headers={"Accept-Encoding": coding, "If-None-Match": '"x"'}
        )
        assert other.headers["etag"] != whole.headers["etag"]


async def test_a_new_snapshot_of_other_metadata_ends_a_delta(
    api: Api, store: SnapshotStore
) -> None:
    base = await published(api, store, SPEC)
    await published(api, store, CHANGED)
    url = f"{PATH}?since={base}"
    before = await api.client.get(url)
    await published(api, store, WITHOUT)
    after = await api.client.get(url, headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.json()["removed"] == [102]


async def test_ids_are_answered_in_their_order_each_once_and_unknown_ones_left_out(
    api: Api,
) -> None:
    version = api.resources.snapshots.require_active().manifest.metadata_version
    asked = f"105,7,{BEYOND_JAVASCRIPT},101,105,9223372036854775807,0101"
    found = await document(api, f"ids={asked}")
    assert found == {
        "kind": "subset",
        "version": version,
        "restaurants": [projection(SPEC, i) for i in (105, BEYOND_JAVASCRIPT, 101)],
    }
    assert await document(api, "ids=105%2C101") == await document(api, "ids=105,101")
    assert (await document(api, "ids=1"))["restaurants"] == []


async def test_at_most_100_ids(api: Api) -> None:
    ids = [str(number) for number in range(101, 202)]
    assert len((await document(api, f"ids={','.join(ids[:100])}"))["restaurants"]) == 60
    response = await api.client.get(f"{PATH}?ids={','.join(ids)}")
    assert response.status_code == 422
    repeated = await api.client.get(f"{PATH}?ids={','.join(['101'] * 101)}")
    assert repeated.status_code == 422


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("ids=", "ids"),
        ("ids=1,", "ids"),
        ("ids=1,,2", "ids"),
        ("ids=-1", "ids"),
        ("ids=1.5", "ids"),
        ("ids=%2B1", "ids"),
        ("ids=9223372036854775808", "ids"),
        ("ids=1000000000000000000000000000000", "ids"),
        ("ids=1&ids=2", "ids"),
        ("since=a%00", "since"),
        ("since=%FF", "since"),
        ("since=a&since=b", "since"),
        ("since=a&ids=1", "ids"),
        ("SINCE=a", "SINCE"),
    ],
)
async def test_bad_values_are_refused(api: Api, query: str, name: str) -> None:
    response = await api.client.get(f"{PATH}?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["name"] == name
    assert response.headers["content-type"] == "application/problem+json"
