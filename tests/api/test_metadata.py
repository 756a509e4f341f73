"""The metadata: four codings of the same bytes, chosen and validated as RFC 9110 has it."""

from __future__ import annotations

import gzip

import brotli
import orjson
import pytest
import zstandard

from shared.settings import Settings, load_settings
from shared.snapshot.store import SnapshotStore
from tests.api.running import SPEC, Api, running
from tests.services.snapshots import projection, publish_snapshot

# No test changes what the API holds: all ask the same one, in its loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/api/restaurants/metadata"
CODINGS = ("zstd", "br", "gzip", "identity")
DECODERS = {
    "zstd": zstandard.decompress,
    "br": brotli.decompress,
    "gzip": gzip.decompress,
    "identity": bytes,
}
CHOICES = [
    (None, "identity"),
    ("", "identity"),
    ("gzip, deflate, br, zstd", "zstd"),
    ("gzip, deflate, br", "br"),
    ("gzip", "gzip"),
    ("x-gzip", "gzip"),
    ("GZIP", "gzip"),
    ("deflate", "identity"),
    ("identity", "identity"),
    ("*", "zstd"),
    ("*;q=0.1, gzip", "gzip"),
    ("zstd;q=0.5, br;q=0.9, gzip;q=0.7", "br"),
    ("gzip;q=0.001", "gzip"),
    ("gzip;q=0", "identity"),
    ("gzip; q=0.0, br;q=0.000", "identity"),
    ("gzip;Q=0.2, identity;q=0.1", "gzip"),
    ("gzip;q=0.2, identity", "identity"),
    ("*;q=0, identity", "identity"),
    ("*;q=0, gzip", "gzip"),
    ("identity;q=0", None),
    ("*;q=0", None),
    ("identity;q=0, deflate", None),
    ("identity;q=0, gzip", "gzip"),
    ("identity;q=0, *", "zstd"),
    ("gzip;q=2", "identity"),
    ("gzip;q=-1, br", "br"),
    ("gzip;q=0.1234, br;q=0.2", "br"),
    ("gzip;level=9, br", "br"),
    (" gzip ,, br;q=0.5 ,", "gzip"),
    ("gzip;q=0, gzip", "identity"),
    ("\t, ;q=1, gzip", "gzip"),
    ("zstd;q=0, *", "br"),
    ("*;q=0, identity;q=0, br;q=0.001", "br"),
    ("identity;q=0.5, *;q=0", "identity"),
    ("identity;q=0.5, *;q=0.4", "identity"),
    ("compress, exi, dcb", "identity"),
    ("compress, identity;q=0", None),
    ("*;q=0, x-gzip;q=0.5", "gzip"),
    ("x-gzip;q=0, *;q=0.1, identity;q=0, zstd;q=0", "br"),
    ("gzip;q=1.001, br;q=1.000", "br"),
    ("gzip;q=.5", "identity"),
]


@pytest.fixture
def api(standing_api: Api) -> Api:
    return standing_api


async def test_each_coding_decodes_to_the_same_document(api: Api) -> None:
    documents = set()
    for coding in CODINGS:
        async with api.client.stream("GET", PATH, headers={"Accept-Encoding": coding}) as response:
            raw = b"".join([piece async for piece in response.aiter_raw()])
        assert response.headers.get("content-encoding", "identity") == coding
        assert int(response.headers["content-length"]) == len(raw)
        assert response.headers["content-type"] == "application/json"
        documents.add(DECODERS[coding](raw))
    (body,) = documents
    document = orjson.loads(body)
    snapshot = api.resources.snapshots.require_active()
    assert document["kind"] == "full"
    assert document["version"] == snapshot.manifest.metadata_version
    assert document["restaurants"] == [projection(SPEC, i) for i in sorted(SPEC.restaurants)]


@pytest.mark.parametrize(("accepted", "coding"), CHOICES)
async def test_the_coding_of_highest_quality_is_chosen(
    api: Api, accepted: str | None, coding: str | None
) -> None:
    del api.client.headers["accept-encoding"]
    headers = {} if accepted is None else {"Accept-Encoding": accepted}
    response = await api.client.get(PATH, headers=headers)
    if coding is None:
        assert response.status_code == 406
        assert response.json()["code"] == "not-acceptable"
    else:
        assert response.status_code == 200
        assert response.headers.get("content-encoding", "identity") == coding
    assert "Accept-Encoding" in response.headers["vary"]


async def test_accept_encoding_on_several_lines(api: Api) -> None:
    del api.client.headers["accept-encoding"]
    lines = [("Accept-Encoding", "gzip;q=0.5"), ("Accept-Encoding", "br")]
    assert (await api.client.get(PATH, headers=lines)).headers["content-encoding"] == "br"


async def test_each_coding_has_its_own_strong_etag_and_its_own_304(api: Api) -> None:
    etags = {}
    for coding in CODINGS:
        whole = await api.client.get(PATH, headers={"Accept-Encoding": coding})
        etags[coding] = whole.headers["etag"]
        assert whole.headers["etag"].startswith('"')
        for form in ("{}", "W/{}", '"a", {}', "*"):
            again = await api.client.get(
                PATH,
                headers={
                    "Accept-Encoding": coding,
                    "If-None-Match": form.format(whole.headers["etag"]),
                },
            )
            assert again.status_code == 304
            assert again.content == b""
            assert "content-encoding" not in again.headers
            for name in ("etag", "cache-control", "vary", "x-metadata-version"):
                assert again.headers[name] == whole.headers[name]
    assert len(set(etags.values())) == 4
    other = await api.client.get(
        PATH, headers={"Accept-Encoding": "br", "If-None-Match": etags["gzip"]}
    )
    assert other.status_code == 200


async def test_cache_rules(api: Api) -> None:
    response = await api.client.get(PATH)
    assert response.headers["cache-control"] == (
        "public, max-age=60, stale-while-revalidate=3600, stale-if-error=86400"
    )
    assert response.headers["vary"] == "Accept-Encoding, Origin"


async def test_without_cors_origins_it_does_not_vary_by_origin(
    settings: Settings, store: SnapshotStore
) -> None:
    manifest = publish_snapshot(store, SPEC)
    environ = {"TASTEMATCH_DATA_DIR": str(settings.data_dir)}
    async with running(load_settings(environ)) as api:
        await api.serves(manifest.version)
        response = await api.client.get(PATH, headers={"Origin": "https://shop.example"})
        assert response.headers["vary"] == "Accept-Encoding"
        assert "access-control-allow-origin" not in response.headers


async def test_nobody_needs_a_token_and_none_changes_the_answer(api: Api) -> None:
    plain = await api.client.get(PATH)
    for headers in (api.as_user(1), api.as_service, {"Authorization": "Bearer nonsense"}):
        response = await api.client.get(PATH, headers=headers)
        assert response.content == plain.content
        assert response.headers["etag"] == plain.headers["etag"]


@pytest.mark.parametrize("query", ["x=1", "limit=5", "%00", "since=1&x=1", "ids=1&sort=name"])
async def test_unknown_parameters_are_refused(api: Api, query: str) -> None:
    response = await api.client.get(f"{PATH}?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["in"] == "query"


async def test_head_is_get_without_the_body(api: Api) -> None:
    get, head = await api.client.get(PATH), await api.client.head(PATH)
    assert head.content == b""
    for name in ("etag", "content-length", "content-encoding", "vary", "cache-control"):
        assert head.headers[name] == get.headers[name]


async def test_the_version_changes_with_the_content_alone(
    settings: Settings, store: SnapshotStore
) -> None:
    first = publish_snapshot(store, SPEC)
    async with running(settings) as api:
        await api.serves(first.version)
        before = await api.client.get(PATH)
        again = publish_snapshot(store, SPEC)
        await api.serves(again.version)
        same = await api.client.get(PATH, headers={"If-None-Match": before.headers["etag"]})
        assert same.status_code == 304
        assert same.headers["x-snapshot-version"] == again.version


async def test_before_the_first_snapshot(empty_api: Api) -> None:
    response = await empty_api.client.get(PATH)
    assert response.status_code == 503
    assert response.json()["code"] == "snapshot-unavailable"
    assert "retry-after" in response.headers
