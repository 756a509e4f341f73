"""What the guard answers by itself is what the documented routes answer, byte for byte."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api.guard import REQUEST_ID
from tests.api.running import PERSONAL, SHORT, Api

LIST = "/api/recommendations"
METADATA = "/api/restaurants/metadata"
# Added around every answer, or told anew by the clock.
AROUND = {"x-request-id", "x-process-time", "server-timing", "x-snapshot-age"}

QUERIES = [
    "",
    "?limit=3&list=discover",
    "?list=order_again",
    "?cuisine=Ramen&price_range=2&city=Osaka&limit=50",
    "?near=34.7,135.5&exclude=101,102",
    "?limit=51&near=x&cuisine=",
    "?cursor=forged",
    "?unknown=1",
]


def inner(api: Api) -> httpx.AsyncClient:
    """A client of the application without its guard."""
    stack = api.app.build_middleware_stack()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await stack({**scope, "app": api.app, REQUEST_ID: "same"}, receive, send)

    transport = httpx.ASGITransport(application)
    return httpx.AsyncClient(transport=transport, base_url="http://api.test")


async def assert_alike(api: Api, path: str, headers: dict[str, str]) -> httpx.Response:
    """The answer, after both were the same."""
    outer = await api.client.get(path, headers={**headers, "X-Request-ID": "same"})
    async with inner(api) as client:
        route = await client.get(path, headers=headers)
    assert outer.status_code == route.status_code, path
    assert outer.content == route.content, path
    fields = [
        {name: value for name, value in response.headers.items() if name not in AROUND}
        for response in (outer, route)
    ]
    assert fields[0] == fields[1], path
    return outer


@pytest.mark.parametrize("form", ["", "/detailed"])
@pytest.mark.parametrize("path", [LIST, f"/api/users/{SHORT}/recommendations"])
async def test_lists(api: Api, path: str, form: str) -> None:
    path += form
    statuses = set()
    for query in QUERIES:
        answer = await assert_alike(api, path + query, api.as_user(SHORT))
        statuses.add(answer.status_code)
        if "next" in answer.links:
            await assert_alike(api, answer.links["next"]["url"], api.as_user(SHORT))
        if answer.status_code == 200:
            known = {**api.as_user(SHORT), "If-None-Match": answer.headers["etag"]}
            assert (await assert_alike(api, path + query, known)).status_code == 304
    assert statuses == {200, 400, 422}
    assert (await assert_alike(api, path, {})).status_code == 401
    of_another = f"/api/users/{SHORT}/recommendations{form}"
    assert (await assert_alike(api, of_another, api.as_user(PERSONAL))).status_code == 403


async def test_public_lists(api: Api) -> None:
    statuses = set()
    for path in (
        "/api/lists/popular",
        "/api/lists/new?city=osaka&limit=3",
        "/api/lists/trending?cuisine=Ramen&city=Nowhere",
        "/api/lists/popular?limit=0&city=",
        "/api/lists/other",
        "/api/lists/popular%0A",
        "/api/restaurants/105/similar?limit=1",
        "/api/restaurants/105/similar?limit=x",
        "/api/restaurants/5/similar",
        "/api/restaurants/%D9%A3/similar",
    ):
        answer = await assert_alike(api, path, {})
        statuses.add(answer.status_code)
        if answer.status_code == 200:
            known = {"If-None-Match": answer.headers["etag"]}
            assert (await assert_alike(api, path, known)).status_code == 304
    assert statuses == {200, 404, 422}


async def test_what_only_looks_like_a_hot_path(api: Api) -> None:
    for path in (
        "/api/users//recommendations",
        "/api/users/43/recommendations/",
        "/api/lists/",
        "/api/lists/popular/",
        "/api/restaurants/105/similar/5",
        "/api/users/4/3/recommendations",
        "//api/lists/popular",
    ):
        assert (await assert_alike(api, path, api.as_user(SHORT))).status_code == 404


async def test_metadata_and_health(api: Api) -> None:
    assert (await assert_alike(api, "/health", {})).status_code == 200
    for coding in ("", "zstd", "br", "gzip", "identity"):
        headers = {"Accept-Encoding": coding}
        answer = await assert_alike(api, METADATA, headers)
        assert answer.status_code == 200
        for query in ("?ids=101,103,5", f"?since={answer.json()['version']}", "?since=old&ids=1"):
            await assert_alike(api, METADATA + query, headers)
        known = {**headers, "If-None-Match": answer.headers["etag"]}
        assert (await assert_alike(api, METADATA, known)).status_code == 304


async def test_before_the_first_snapshot(empty_api: Api) -> None:
    for path in (LIST, METADATA):
        answer = await assert_alike(empty_api, path, empty_api.as_user(SHORT))
        assert answer.status_code == 503
