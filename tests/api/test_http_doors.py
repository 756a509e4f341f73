"""The same question at every door: the server's shortest way, and FastAPI's route alone.

What the documentation describes is the route; what is asked thousands of times a second never
comes near it. So both have to say the same, whatever is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from api.guard import Guard
from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from tests.api.running import ORIGIN, PERSONAL, SHORT, SPEC, UNKNOWN, running
from tests.api.wire import Reply, wire
from tests.services.children import wait_until
from tests.services.processes import Serving, start_serve
from tests.services.snapshots import publish_snapshot

LISTS = "/api/recommendations"
METADATA = "/api/restaurants/metadata"
TARGETS = [
    *("/health", "/health?x=1", "/health?%FF", LISTS, f"{LISTS}?", f"{LISTS}?&&", METADATA),
    *(f"{LISTS}?limit=3&list=discover", f"{LISTS}?list=order_again", f"{LISTS}?l%69mit=%33"),
    *(f"{LISTS}?limit={text}" for text in ("0", "51", "+1", "1.0", "1e1", "%201", "%EF%BC%91", "")),
    *(f"{LISTS}?limit=1&limit=1", f"{LISTS}?list=all", f"{LISTS}?list=%00", f"{LISTS}?list=%ED%A0"),
    *(f"{LISTS}?x=1", f"{LISTS}?%FF=1", f"{LISTS}?x=1&limit=a", f"{LISTS}?cursor=%FF"),
    *(f"{LISTS}?cuisine=Ramen", f"{LISTS}?city=Osaka&price_range=2", f"{LISTS}?exclude=101,103"),
    *(f"{METADATA}?x=1", f"{METADATA}?", f"{METADATA}?ids=101", f"{METADATA}?since=0"),
    *(
        f"/api/users/{user}/recommendations"
        for user in (SHORT, UNKNOWN, "x", "-1", "4%33", "10" * 20)
    ),
    f"/api/users/{SHORT}/recommendations?limit=2",
    *(f"/api/users/{SHORT}/recommendations/", "/api/users//recommendations"),
]
CHANGING = ("x-process-time", "server-timing", "x-snapshot-age")


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("doors")
    made = load_settings({"TASTEMATCH_DATA_DIR": str(folder), "TASTEMATCH_CORS_ORIGINS": ORIGIN})
    store = open_store(made)
    publish_snapshot(store, SPEC)
    store.close()
    return made


@pytest.fixture(scope="module")
def serving(shared_settings: Settings) -> Iterator[Serving]:
    env = {
        "TASTEMATCH_DATA_DIR": str(shared_settings.data_dir),
        "TASTEMATCH_CORS_ORIGINS": ORIGIN,
    }
    with start_serve(env=env) as started, wire(started.port) as asked:
        wait_until(
            lambda: asked.ask(METADATA).status == 200, timeout_seconds=10, describe="a snapshot"
        )
        yield started


async def test_every_door_gives_the_same_answer(
    serving: Serving, shared_settings: Settings
) -> None:
    seen: Counter[int] = Counter()
    async with running(shared_settings) as api:
        route = _routes_alone(api.app, shared_settings)
        with wire(serving.port) as asked:
            etag = asked.ask(LISTS, fields=api.as_user(SHORT))["etag"]
            metadata_etag = asked.ask(METADATA)["etag"]
        callers = [{}, api.as_user(SHORT), api.as_service, api.as_viewer, api.as_user(PERSONAL)]
        conditions = [f"W/{etag}, {metadata_etag}", "*", '"x"', "x", ""]
        questions = [
            *callers,
            {"Authorization": "Bearer x"},
            {"Authorization": "Basic eDp5"},
            *(api.as_user(SHORT) | {"If-None-Match": text} for text in conditions),
            *({"Accept-Encoding": text} for text in ("br", "gzip;q=0, *;q=0", "*", "x", "")),
            api.as_user(SHORT) | {"Origin": ORIGIN},
            {"Origin": ORIGIN, "If-None-Match": metadata_etag},
            {"Origin": "https://evil.example"},
        ]
        with wire(serving.port) as asked:
            for target in TARGETS:
                for fields in questions:
                    for method in ("GET", "HEAD"):
                        sent = {**fields, "X-Request-ID": "same"}
                        one = asked.ask(target, method=method, fields=sent)
                        other = await _ask(route, target, method=method, fields=sent)
                        assert _stable(one) == _stable(other), (method, target, fields)
                        seen[one.status] += 1
    assert set(seen) >= {200, 304, 401, 403, 404, 406, 422}


def _routes_alone(app: FastAPI, settings: Settings) -> Guard:
    stack = app.build_middleware_stack()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = app
        await stack(scope, receive, send)

    return Guard(
        answer,
        settings,
        lifecycle=app.state.resources.lifecycle,
        find_hot=lambda _path: None,
        is_light=lambda _path: True,
        observe=lambda **_request: None,
    )


async def _ask(app: Guard, target: str, *, method: str, fields: Mapping[str, str]) -> Reply:
    """One request, made into a scope as the server does."""
    path, _, query = target.partition("?")
    given = {"Host": "api.test", **fields}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *bodies = sent
    names = tuple((name.decode(), value.decode("latin-1")) for name, value in start["headers"])
    return Reply(start["status"], names, b"".join(bytes(message["body"]) for message in bodies))


def _stable(reply: Reply) -> tuple[int, list[tuple[str, str]], bytes]:
    """Without the values that differ from second to second."""
    fields = [(n, "" if n in CHANGING else v) for n, v in reply.fields if n != "date"]
    return reply.status, fields, reply.body
