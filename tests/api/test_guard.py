"""What holds for every answer: ids, timing, CORS, bounds, one form for every error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from shared.settings import Settings
from tests.api.running import ORIGIN, PERSONAL, SHORT, Api, running

# No test changes what the API holds: all ask the same one, in its loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

LISTS = "/api/recommendations"
METADATA = "/api/restaurants/metadata"
EXPOSED = {
    *("etag", "x-snapshot-version", "x-snapshot-age", "x-recommendation-source", "x-request-id"),
    *("last-modified", "x-metadata-version", "x-process-time", "server-timing", "retry-after"),
}


@pytest.fixture
def api(standing_api: Api) -> Api:
    return standing_api


async def answers_of_every_status(api: Api) -> dict[int, httpx.Response]:
    """One answer of each status, hot paths and FastAPI's among them."""
    user = api.as_user(PERSONAL) | {"Origin": ORIGIN}
    get = api.client.get
    whole = await get(LISTS, headers=user)
    responses = [
        whole,
        await get(LISTS, headers=user | {"If-None-Match": whole.headers["etag"]}),
        await get(LISTS, headers={"Origin": ORIGIN}),
        await get(f"/api/users/{SHORT}/recommendations", headers=user),
        await get("/nowhere", headers=user),
        await api.client.post(LISTS, headers=user),
        await get(METADATA, headers=user | {"Accept-Encoding": "*;q=0"}),
        await api.client.post("/nowhere", content=b"x" * 70_000, headers=user),
        await get(f"{LISTS}?limit=0", headers=user),
    ]
    return {response.status_code: response for response in responses}


async def test_every_answer_has_its_id_and_its_time(api: Api) -> None:
    answers = await answers_of_every_status(api)
    assert set(answers) == {200, 304, 401, 403, 404, 405, 406, 413, 422}
    for response in answers.values():
        assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", response.headers["x-request-id"])
        assert re.fullmatch(r"\d+\.\d{6}", response.headers["x-process-time"])
        assert re.fullmatch(r"app;dur=\d+\.\d{3}", response.headers["server-timing"])
    ids = [response.headers["x-request-id"] for response in answers.values()]
    assert len(set(ids)) == len(ids)


async def test_every_error_is_a_problem_document(api: Api) -> None:
    for status, response in (await answers_of_every_status(api)).items():
        if status < 400:
            continue
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["cache-control"] == "no-store"
        problem = response.json()
        assert problem["status"] == status
        assert problem["request_id"] == response.headers["x-request-id"]
        assert {"type", "title", "detail", "code"} <= set(problem)
        assert problem["type"].endswith(problem["code"])


@pytest.mark.parametrize("given", ["abc", "A-1.b_2", "x" * 128, "0"])
@pytest.mark.parametrize("path", [LISTS, "/health", "/nowhere", "/ready"])
async def test_a_well_formed_request_id_is_kept(api: Api, path: str, given: str) -> None:
    response = await api.client.get(path, headers={"X-Request-ID": given})
    assert response.headers["x-request-id"] == given
    if response.status_code >= 400:
        assert response.json()["request_id"] == given


@pytest.mark.parametrize(
    "given", ["", "x" * 129, "a b", "a\tb", "ä", "a,b", "a;b", "\x1b[31m", "{}", "<b>"]
)
async def test_any_other_request_id_is_replaced(api: Api, given: str) -> None:
    response = await api.client.get("/nowhere", headers=[(b"X-Request-ID", given.encode())])
    assert response.headers["x-request-id"] != given
    assert re.fullmatch(r"[0-9a-f-]+", response.headers["x-request-id"])


# --- CORS -------------------------------------------------------------------------------------


async def test_an_allowed_origin_may_read_the_same_headers_of_every_answer(api: Api) -> None:
    exposed = set()
    for response in (await answers_of_every_status(api)).values():
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in response.headers
        assert "Origin" in response.headers["vary"]
        exposed.add(response.headers["access-control-expose-headers"])
    (names,) = exposed
    assert set(names.lower().split(", ")) >= EXPOSED


async def test_a_503_is_readable_across_origins_too(empty_api: Api) -> None:
    for path, headers in ((LISTS, empty_api.as_user(1)), (METADATA, {}), ("/ready", {})):
        response = await empty_api.client.get(path, headers=headers | {"Origin": ORIGIN})
        assert response.status_code == 503
        assert response.headers["access-control-allow-origin"] == ORIGIN
        names = set(response.headers["access-control-expose-headers"].lower().split(", "))
        assert names >= EXPOSED


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "https://shop.example.evil.example", "https://shop.exampl"),
        *("http://shop.example", "https://shop.example:444", "HTTPS://SHOP.EXAMPLE"),
        *("null", "*", ""),
    ],
)
async def test_any_other_origin_may_read_nothing(api: Api, origin: str) -> None:
    for path in (LISTS, METADATA, "/health", "/nowhere"):
        response = await api.client.get(path, headers={"Origin": origin})
        assert not [name for name in response.headers if name.startswith("access-control-")]
    preflight = await api.client.options(
        LISTS, headers={"Origin": origin, "Access-Control-Request-Method": "GET"}
    )
    assert preflight.status_code == 403
    assert not [name for name in preflight.headers if name.startswith("access-control-")]


async def test_a_preflight_allows_what_the_api_takes(api: Api) -> None:
    response = await api.client.options(
        LISTS,
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization, if-none-match",
        },
    )
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == ORIGIN
    allowed = response.headers["access-control-allow-headers"].lower()
    for name in ("authorization", "if-none-match", "x-request-id", "idempotency-key"):
        assert name in allowed
    assert "GET" in response.headers["access-control-allow-methods"]
    assert "Origin" in response.headers["vary"]


# --- bounds -----------------------------------------------------------------------------------


@pytest.fixture
async def slow_api(settings: Settings) -> AsyncIterator[tuple[Api, asyncio.Event]]:
    """An API for two requests at once, with a route that answers when the event is set."""
    release = asyncio.Event()
    async with running(settings.model_copy(update={"max_in_flight": 2})) as api:

        @api.app.get("/slow")
        async def slow() -> dict[str, str]:
            await release.wait()
            return {"slow": "done"}

        @api.app.post("/length")
        async def length(body: dict[str, Any]) -> int:
            return len(body["text"])

        yield api, release
        release.set()


async def test_more_than_may_be_in_flight_are_shed(slow_api: tuple[Api, asyncio.Event]) -> None:
    api, release = slow_api
    waiting = [asyncio.create_task(api.client.get("/slow")) for _ in range(2)]
    while api.resources.lifecycle.in_flight < 2:  # noqa: ASYNC110 - a plain number
        await asyncio.sleep(0)
    shed = await api.client.get("/slow")
    assert shed.status_code == 503
    assert shed.json()["code"] == "overloaded"
    assert int(shed.headers["retry-after"]) >= 1
    # What is answered from memory waits for nobody, and is not shed for those who wait.
    assert (await api.client.get("/health")).status_code == 200
    assert (await api.client.get(METADATA)).json()["code"] == "snapshot-unavailable"
    popular = await api.client.get("/api/lists/popular")
    assert popular.json()["code"] == "snapshot-unavailable"
    release.set()
    assert [(await task).status_code for task in waiting] == [200, 200]
    assert api.resources.lifecycle.in_flight == 0
    assert (await api.client.get("/slow")).status_code == 200


async def test_a_request_that_fails_gives_its_place_back(
    slow_api: tuple[Api, asyncio.Event],
) -> None:
    api, _ = slow_api

    @api.app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret: hunter2")

    for _attempt in range(5):
        response = await api.client.get("/broken")
        assert response.status_code == 500
        assert response.json()["code"] == "internal"
        assert "hunter2" not in response.text
        assert "Traceback" not in response.text
    assert api.resources.lifecycle.in_flight == 0


@pytest.mark.parametrize(("size", "status"), [(65_000, 200), (65_537, 413), (300_000, 413)])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_bodies_are_bounded(
    slow_api: tuple[Api, asyncio.Event], size: int, status: int, is_chunked: bool
) -> None:
    api, _ = slow_api
    body = b'{"text":"%s"}' % (b"x" * (size - 11))

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    response = await api.client.post(
        "/length",
        content=pieces() if is_chunked else body,
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == status
    if status == 413:
        assert response.json()["code"] == "body-too-large"
        assert response.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed-input"),
        (b"\xff\xfe", 400, None),
        (b"[" * 60_000, 400, None),
        (b"{}", 200, None),
        (b"[]", 422, "invalid-input"),
        (b"", 422, "invalid-input"),
    ],
)
async def test_bodies_that_cannot_be_read(
    slow_api: tuple[Api, asyncio.Event], body: bytes, status: int, code: str | None
) -> None:
    api, _ = slow_api

    @api.app.post("/any")
    async def take(body: dict[str, str]) -> dict[str, str]:
        return body

    response = await api.client.post(
        "/any", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == status
    if status >= 400:
        assert response.headers["content-type"] == "application/problem+json"
    if code is not None:
        assert response.json()["code"] == code
    if status == 422:
        assert response.json()["errors"][0]["in"] == "body"


# --- the rest ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api", "/api/recommendations/", "/api/lists", "/%00"])
async def test_unknown_paths_are_404(api: Api, path: str) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        response = await api.client.request(method, path)
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path", ["/health", LISTS, METADATA, "/api/restaurants/101/similar", "/api/lists/popular"]
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"])
async def test_other_methods_are_405_with_allow(api: Api, path: str, method: str) -> None:
    response = await api.client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"
    assert response.json()["code"] == "method-not-allowed"


async def test_health_says_nothing_but_ok(empty_api: Api) -> None:
    response = await empty_api.client.get("/health")
    assert response.status_code == 200
    assert response.json() == {"status": "ok"}


async def test_a_draining_process_tells_clients_to_go(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.resources.lifecycle, "is_draining", True)
    for path in ("/health", LISTS, "/nowhere"):
        response = await api.client.get(path, headers=api.as_user(PERSONAL))
        assert response.headers["connection"] == "close"
    assert (await api.client.get(LISTS, headers=api.as_user(PERSONAL))).status_code == 200
