"""Who may call what: every route with every token, and what makes a token good."""

from __future__ import annotations

import time

import pytest
from fastapi.routing import iter_route_contexts

from api.auth import MAX_REMEMBERED, MAX_REMEMBERED_BYTES, Authenticator
from shared.errors import Unauthenticated
from shared.settings import Settings
from shared.tokens import LEEWAY_SECONDS, issue_user_token
from tests.api.running import PERSONAL, SHORT, Api

EVERYONE = {"nobody": 200, "user": 200, "other": 200, "service": 200, "viewer": 200}
MINE = {"nobody": 401, "user": 200, "other": 200, "service": 403, "viewer": 403}
OF_USER = {"nobody": 401, "user": 200, "other": 403, "service": 200, "viewer": 200}
OPERATORS = {"nobody": 401, "user": 403, "other": 403, "service": 200, "viewer": 200}
SERVICE = {"nobody": 401, "user": 403, "other": 403, "service": 200, "viewer": 403}

MATRIX = {
    "GET /health": EVERYONE,
    "GET /ready": EVERYONE,
    "GET /metrics": EVERYONE,
    "GET /api/recommendations": MINE,
    "GET /api/recommendations/detailed": MINE,
    "GET /api/users/{user_id}/recommendations": OF_USER,
    "GET /api/users/{user_id}/recommendations/detailed": OF_USER,
    "GET /api/users/{user_id}/explain": OPERATORS,
    "PUT /api/users": SERVICE | {"service": 200},
    "DELETE /api/users/{user_id}": SERVICE | {"service": 204},
    "GET /api/restaurants": EVERYONE,
    "PUT /api/restaurants": SERVICE | {"service": 200},
    "GET /api/restaurants/metadata": EVERYONE,
    "GET /api/restaurants/{restaurant_id}": dict.fromkeys(EVERYONE, 404),
    "PATCH /api/restaurants/{restaurant_id}": SERVICE | {"service": 400},
    "GET /api/restaurants/{restaurant_id}/similar": EVERYONE,
    "GET /api/lists/{list_name}": EVERYONE,
    "GET /api/orders": MINE,
    "POST /api/orders": MINE | {"user": 400, "other": 400},
    "POST /api/orders/batch": SERVICE | {"service": 200},
    "GET /api/preferences": MINE,
    "PUT /api/preferences": MINE | {"user": 400, "other": 400},
    "PUT /api/preferences/hidden/{restaurant_id}": MINE | {"user": 404, "other": 404},
    "DELETE /api/preferences/hidden/{restaurant_id}": MINE | {"user": 204, "other": 204},
}
# Their roles are tested where these routes are.
ELSEWHERE = ("/api/jobs", "/api/snapshots", "/docs", "/openapi.json")
OWN = ("/api/recommendations", "/api/users", "/api/orders", "/api/preferences")


def _headers(api: Api, role: str) -> dict[str, str]:
    return {
        "nobody": {},
        "user": api.as_user(PERSONAL),
        "other": api.as_user(SHORT),
        "service": api.as_service,
        "viewer": api.as_viewer,
    }[role]


@pytest.mark.parametrize("role", EVERYONE)
async def test_each_role_on_each_route(api: Api, role: str) -> None:
    for route, expected in MATRIX.items():
        method, _, template = route.partition(" ")
        path = template.format(user_id=PERSONAL, restaurant_id=101, list_name="popular")
        response = await api.client.request(method, path, headers=_headers(api, role))
        assert response.status_code == expected[role], route
        if response.status_code == 401:
            assert response.headers["www-authenticate"].startswith("Bearer")
        if path.startswith(OWN):
            assert response.headers["cache-control"] in ("private, no-cache", "no-store")
            assert "Authorization" in response.headers["vary"]


async def test_every_route_stands_in_the_matrix(api: Api) -> None:
    routes = {
        f"{method} {context.path}"
        for context in iter_route_contexts(api.app.routes)
        for method in context.methods or ()
        if context.path is not None and not context.path.startswith(ELSEWHERE)
    }
    assert {route for route in routes if not route.startswith("HEAD ")} == set(MATRIX)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
async def test_the_scheme_is_taken_in_any_case(api: Api, scheme: str) -> None:
    for headers in (api.as_user(PERSONAL), api.as_viewer):
        token = headers["Authorization"].removeprefix("Bearer ")
        response = await api.client.get(
            f"/api/users/{PERSONAL}/recommendations",
            headers={"Authorization": f"{scheme}  {token} "},
        )
        assert response.status_code == 200


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic {}",
        "{}",
        "Bearer {} {}",
        "Bearer {},Bearer {}",
        "Bearer x{}",
    ],
)
async def test_anything_else_is_no_credential(api: Api, value: str) -> None:
    token = api.as_user(PERSONAL)["Authorization"].removeprefix("Bearer ")
    response = await api.client.get(
        "/api/recommendations", headers={"Authorization": value.replace("{}", token)}
    )
    assert response.status_code == 401
    assert response.json()["code"] == "unauthenticated"
    assert token not in response.text


async def test_bytes_outside_ascii_are_no_credential(api: Api) -> None:
    headers = [(b"Authorization", b"Bearer \xff\xfe\x80")]
    assert (await api.client.get("/api/recommendations", headers=headers)).status_code == 401


async def test_two_authorization_lines_are_no_credential(api: Api) -> None:
    lines = [*api.as_user(PERSONAL).items()] * 2
    for path in ("/api/recommendations", f"/api/users/{PERSONAL}/recommendations/detailed"):
        assert (await api.client.get(path, headers=lines)).status_code == 401


async def test_a_token_in_the_query_is_not_looked_at(api: Api) -> None:
    token = api.as_user(PERSONAL)["Authorization"].removeprefix("Bearer ")
    response = await api.client.get(f"/api/recommendations?access_token={token}")
    assert response.status_code == 401
    assert token not in response.text


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t + "x", lambda t: t[1:], str.upper]
)
async def test_a_piece_of_the_service_token_opens_nothing(api: Api, change: object) -> None:
    assert callable(change)
    token = change(api.as_service["Authorization"].removeprefix("Bearer "))
    response = await api.client.get(
        f"/api/users/{PERSONAL}/recommendations", headers={"Authorization": f"Bearer {token}"}
    )
    assert response.status_code == 401


# --- what is remembered -----------------------------------------------------------------------


def _bearer(settings: Settings, user_id: int, *, now: float, ttl_seconds: int = 60) -> bytes:
    token = issue_user_token(settings, user_id=user_id, ttl_seconds=ttl_seconds, now=now)
    return f"Bearer {token}".encode()


def test_a_remembered_token_expires_all_the_same(settings: Settings) -> None:
    authenticator = Authenticator(settings)
    now = time.time()
    header = _bearer(settings, 7, now=now)
    last = int(now) + 60 + LEEWAY_SECONDS
    for at in (now, now + 30, last - 1):
        assert authenticator.principal(header, now=at).user_id == 7
    for at in (last, last + 1):
        with pytest.raises(Unauthenticated):
            authenticator.principal(header, now=at)
    assert header not in authenticator._remembered


def test_only_good_tokens_are_remembered_and_not_without_end(settings: Settings) -> None:
    authenticator = Authenticator(settings)
    now = time.time()
    good = _bearer(settings, 7, now=now)
    for number in range(100):
        with pytest.raises(Unauthenticated):
            authenticator.principal(good + b"%d" % number, now=now)
    assert not authenticator._remembered
    first = _bearer(settings, 0, now=now)
    for user_id in range(MAX_REMEMBERED + 50):
        authenticator.principal(_bearer(settings, user_id, now=now), now=now)
    assert len(authenticator._remembered) == MAX_REMEMBERED
    assert first not in authenticator._remembered
    assert authenticator._remembered_bytes == sum(map(len, authenticator._remembered))
    assert authenticator._remembered_bytes <= MAX_REMEMBERED_BYTES
    assert authenticator.principal(first, now=now).user_id == 0


def test_long_tokens_are_remembered_within_the_bytes(settings: Settings) -> None:
    wordy = settings.model_copy(update={"jwt_user_claim": "claim-" + "n" * 3_000})
    authenticator = Authenticator(wordy)
    now = time.time()
    for user_id in range(700):
        authenticator.principal(_bearer(wordy, user_id, now=now), now=now)
    kept = authenticator._remembered
    assert 0 < sum(map(len, kept)) <= MAX_REMEMBERED_BYTES
    assert len(kept) < 700
