"""What stands on the wire, over every operation of the document: validators, caches, bad values."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import pytest
from sqlalchemy import insert

from api.write_openapi import DEFAULT_PATH
from shared.db.engine import sync_engine
from shared.db.migration import migrate
from shared.db.models import Restaurant
from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from shared.tokens import issue_user_token
from tests.api.running import BEYOND_JAVASCRIPT, ORIGIN, PERSONAL, SHORT, SPEC
from tests.api.wire import Reply, Wire, wire
from tests.services.children import unused_port, wait_until
from tests.services.postgres import PostgresDatabases
from tests.services.processes import Serving, start_serve
from tests.services.snapshots import publish_snapshot

LISTS = "/api/recommendations"
METADATA = "/api/restaurants/metadata"
DOCUMENT: dict[str, Any] = json.loads(DEFAULT_PATH.read_bytes())
GETS = [(path, item["get"]) for path, item in DOCUMENT["paths"].items() if "get" in item]
PLACES = {
    "user_id": str(SHORT),
    "restaurant_id": "101",
    "list_name": "popular",
    "job_id": "0" * 32,
    "version": "20260101T000000000000Z-0000",
}
EXPOSED = {
    *("etag", "x-snapshot-version", "x-snapshot-age", "x-recommendation-source", "x-request-id"),
    *("link", "location", "retry-after", "last-modified", "x-metadata-version", "server-timing"),
}
# Fields of HTTP itself, and those that only an allowed origin gets.
UNDOCUMENTED = {"date", "content-type", "content-length", "connection", "allow"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('wire') / 'tastematch.db'}"
        return
    servers: PostgresDatabases = request.getfixturevalue("postgres")
    url = servers.create_database()
    # In a form that hosts give.
    yield url.replace("postgresql://", "postgres://") + "?sslmode=disable"
    servers.drop_database(url)


@pytest.fixture(scope="module")
def settings(database: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A snapshot, and a database of some of its restaurants."""
    folder = tmp_path_factory.mktemp("wire-data")
    made = load_settings(
        {
            "TASTEMATCH_DATA_DIR": str(folder),
            "DATABASE_URL": database,
            "TASTEMATCH_CORS_ORIGINS": ORIGIN,
        }
    )
    migrate(made)
    engine = sync_engine(made)
    with engine.begin() as connection:
        for number in (101, 102, BEYOND_JAVASCRIPT):
            row = {"id": number, "name": f"R {number}", "city": "Osaka", "is_active": True}
            connection.execute(insert(Restaurant).values(row))
    engine.dispose()
    store = open_store(made)
    publish_snapshot(store, SPEC)
    store.close()
    return made


@pytest.fixture(scope="module")
def serving(settings: Settings, database: str) -> Iterator[Serving]:
    env = {
        "TASTEMATCH_DATA_DIR": str(settings.data_dir),
        "DATABASE_URL": database,
        "TASTEMATCH_CORS_ORIGINS": ORIGIN,
    }
    with start_serve(env=env) as started, wire(started.port) as asked:
        wait_until(
            lambda: asked.ask(METADATA).status == 200, timeout_seconds=10, describe="a snapshot"
        )
        yield started


@pytest.fixture
def asked(serving: Serving) -> Iterator[Wire]:
    with wire(serving.port) as opened:
        yield opened


@pytest.fixture
def user(settings: Settings) -> dict[str, str]:
    return _bearer(settings, PERSONAL)


@pytest.fixture
def service(settings: Settings) -> dict[str, str]:
    assert settings.service_token is not None
    return {"Authorization": f"Bearer {settings.service_token.get_secret_value()}"}


def _bearer(settings: Settings, user_id: int) -> dict[str, str]:
    token = issue_user_token(settings, user_id=user_id, ttl_seconds=600, now=time.time())
    return {"Authorization": f"Bearer {token}"}


def _caller(
    operation: Mapping[str, Any], user: dict[str, str], service: dict[str, str]
) -> dict[str, str]:
    return user if operation["operationId"].startswith(("listMy", "getMy")) else service


def _strict(body: bytes) -> Any:
    def refuse(name: str) -> NoReturn:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(body.decode("utf-8"), parse_constant=refuse)


# --- every operation ------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "operation"), GETS, ids=[o["operationId"] for _, o in GETS])
def test_head_is_get_without_its_body(
    asked: Wire,
    user: dict[str, str],
    service: dict[str, str],
    path: str,
    operation: dict[str, Any],
) -> None:
    """The same fields, the length of the body included; and those are what the document says."""
    fields = _caller(operation, user, service) | {"X-Request-ID": "same", "Origin": ORIGIN}
    target = path.format_map(PLACES)
    whole = asked.ask(target, fields=fields)
    head = asked.ask(target, method="HEAD", fields=fields)
    assert head.status == whole.status
    assert head.body == b""
    assert head["content-length"] == whole["content-length"] == str(len(whole.body))
    assert [n for n, _ in head.fields] == [n for n, _ in whole.fields]
    _strict(whole.body)
    documented = {name.lower() for name in operation["responses"][str(whole.status)]["headers"]}
    own = {n for n in whole.names if not n.startswith("access-control-")} - UNDOCUMENTED
    assert own <= documented
    optional = {"link", "content-encoding", "vary"}
    assert documented - own <= optional


@pytest.mark.parametrize(("path", "operation"), GETS, ids=[o["operationId"] for _, o in GETS])
def test_what_the_client_holds_is_not_sent_again(
    asked: Wire,
    user: dict[str, str],
    service: dict[str, str],
    path: str,
    operation: dict[str, Any],
) -> None:
    fields = _caller(operation, user, service)
    target = path.format_map(PLACES)
    whole = asked.ask(target, fields=fields)
    if "etag" not in whole.names:
        assert "304" not in operation["responses"]
        assert whole["cache-control"] == "no-store"
        return
    etag = whole["etag"]
    assert re.fullmatch(r'"[\x21\x23-\x7e]+"', etag), "a strong validator"
    for matching in (etag, f"W/{etag}", f'"a", {etag}', f'"a,b",W/"c" , W/{etag}', "*", " * "):
        same = asked.ask(target, fields=fields | {"If-None-Match": matching})
        assert same.status == 304, matching
        assert "content-length" not in same.names
        kept = {"etag", "cache-control", "vary"}
        assert {n: same[n] for n in kept} == {n: whole[n] for n in kept}
        assert (
            asked.ask(target, method="HEAD", fields=fields | {"If-None-Match": etag}).status == 304
        )
    for other in ('"y"', "y", etag.strip('"'), f'"{etag}"', '"*"', "", f"w/{etag[:-1]}", '"a'):
        again = asked.ask(target, fields=fields | {"If-None-Match": other})
        assert (again.status, again.body) == (200, whole.body), other
    lines = [*fields.items(), ("If-None-Match", '"a"'), ("If-None-Match", etag)]
    assert asked.ask(target, fields=lines).status == 304


@pytest.mark.parametrize("path", sorted(DOCUMENT["paths"]))
def test_other_methods_are_405_and_allow_names_those_there_are(
    asked: Wire, service: dict[str, str], path: str
) -> None:
    known = {method.upper() for method in DOCUMENT["paths"][path]}
    known |= {"HEAD"} if "GET" in known else set()
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - known:
        refused = asked.ask(path.format_map(PLACES), method=method, fields=service)
        assert refused.status == 405, method
        assert set(refused["allow"].split(", ")) == known
        if method != "HEAD":
            assert _strict(refused.body)["code"] == "method-not-allowed"


HUGE = ["2147483648", str(2**63 - 1), str(2**63), "1" + "0" * 30, "-1"]
NOT_NUMBERS = [
    *("%2B1", "+1", "1.0", "1e3", "%201", "1%20", "%EF%BC%91", "%D9%A1", "0x1", "1_0", ""),
    *("nan", "NaN", "inf", "-inf", "Infinity", "1e400", "%00", "true", "1,", "'"),
]
HOSTILE = ["%00", "a%00b", "%ED%A0%80", "%FF", "%C0%AF", "%F4%90%80%80", "%1B", "%E2%80%AE", "%"]


@pytest.mark.parametrize(("path", "operation"), GETS, ids=[o["operationId"] for _, o in GETS])
def test_no_value_of_any_parameter_is_an_error_of_the_server(
    asked: Wire,
    user: dict[str, str],
    service: dict[str, str],
    path: str,
    operation: dict[str, Any],
) -> None:
    """Numbers no column holds, texts no text is, ten kilobytes: refused, or nothing is found."""
    fields = _caller(operation, user, service)
    long = "a" * 7_900  # beside 10 KB, which is more than an address may have
    places = PLACES | {"version": "x"}
    for parameter in operation.get("parameters", ()):
        name, schema = parameter["name"], parameter["schema"]
        for text in (*HUGE, *NOT_NUMBERS, *HOSTILE, long, "%F0%9F%8D%9C", "' OR 1=1--"):
            value = text.replace(" ", "%20")
            if parameter["in"] == "path":
                target = path.format_map(places | {name: value})
            else:
                target = f"{path.format_map(places)}?{quote(name)}={value}"
            reply = asked.ask(target, fields=fields)
            assert reply.status in (200, 400, 404, 422), (target, reply)
            document = _strict(reply.body)
            if reply.status == 422:
                assert document["errors"][0]["in"] == parameter["in"], target
                assert document["errors"][0]["name"] == name
            if name == "cursor":
                assert (reply.status, document["code"]) == (400, "malformed-input"), target
            kind = schema.get("type")
            if text in NOT_NUMBERS and (kind == "integer" or (kind == "number" and text != "1.0")):
                # An empty piece of a path is another path.
                assert reply.status == 422 or (text == "" and reply.status == 404), target
    if operation["operationId"] == "getHealth":
        return  # looks at nothing, so that no prober's habit makes a healthy process look ill
    for query in ("x=1", "limit=1&limit=1", "%FF=1", "=", "%00=1", "&".join(["a=1"] * 70)):
        reply = asked.ask(f"{path.format_map(PLACES)}?{query}", fields=fields)
        if operation["operationId"].startswith("getReadi") or reply.status != 404:
            assert reply.status == 422, (query, reply)
            assert _strict(reply.body)["errors"]


# --- negotiation, origins, caches -------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        *((name, name) for name in ("zstd", "br", "gzip")),
        *((None, None), ("identity", None), ("", None), ("gzip;q=0", None), ("deflate", None)),
        *(("*;q=0, identity", None), ("gzip;q=0, br;q=0.5, identity;q=0.1", "br")),
        *(("gzip, deflate, br, zstd", "zstd"), ("gzip;q=1, zstd;q=0.9", "gzip"), ("*", "zstd")),
    ],
)
def test_each_coding_has_a_validator_of_its_own(
    asked: Wire, accepted: str | None, coding: str | None
) -> None:
    fields = {} if accepted is None else {"Accept-Encoding": accepted}
    whole = asked.ask(METADATA, fields=fields)
    assert whole.status == 200
    assert (whole["content-encoding"] if "content-encoding" in whole.names else None) == coding
    assert whole["etag"].endswith(f'-{coding or "identity"}"')
    same = asked.ask(METADATA, fields=fields | {"If-None-Match": whole["etag"]})
    assert same.status == 304
    for reply in (whole, same):
        assert "Accept-Encoding" in reply["vary"].split(", ")
    other = "br" if coding != "br" else "gzip"
    assert asked.ask(
        METADATA, fields={"Accept-Encoding": other, "If-None-Match": whole["etag"]}
    ).status == (200)


def test_the_same_fields_are_exposed_whatever_the_status(
    serving: Serving, user: dict[str, str], service: dict[str, str]
) -> None:
    sent = user | {"Origin": ORIGIN}
    preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    questions: list[tuple[int, dict[str, Any]]] = [
        (200, {"target": LISTS, "fields": sent}),
        (304, {"target": LISTS, "fields": sent | {"If-None-Match": "*"}}),
        (204, {"target": LISTS, "method": "OPTIONS", "fields": preflight}),
        (400, {"target": "/health", "fields": sent, "host": None}),
        (400, {"target": "/health", "fields": sent, "method": "NONSENSE"}),
        (401, {"target": LISTS, "fields": {"Origin": ORIGIN}}),
        (403, {"target": LISTS, "fields": service | {"Origin": ORIGIN}}),
        (404, {"target": "/nowhere", "fields": sent}),
        (405, {"target": LISTS, "method": "DELETE", "fields": sent}),
        (406, {"target": METADATA, "fields": sent | {"Accept-Encoding": "*;q=0"}}),
        (413, {"target": "/", "method": "POST", "fields": sent, "body": b"x" * 70_000}),
        (414, {"target": "/" + "a" * 9_000, "fields": sent}),
        (422, {"target": f"{LISTS}?limit=0", "fields": sent}),
        (431, {"target": "/health", "fields": sent | {"X-Long": "a" * 33_000}}),
    ]
    exposed = set()
    for status, question in questions:
        with wire(serving.port) as connection:
            reply = connection.ask(**question)
        if question.get("method") == "NONSENSE":
            # Not a method of HTTP: refused before a field was read, so no origin is known.
            assert reply.status == status
            continue
        assert reply.status == status, question
        assert reply["access-control-allow-origin"] == ORIGIN
        assert {"x-request-id", "x-process-time", "server-timing", "cache-control"} <= reply.names
        assert "Origin" in reply["vary"]
        exposed.add(reply["access-control-expose-headers"])
    (names,) = exposed
    assert set(names.lower().split(", ")) >= EXPOSED


def test_a_503_before_the_first_snapshot_is_like_the_others(tmp_path: Path) -> None:
    env = {
        "TASTEMATCH_DATA_DIR": str(tmp_path),
        "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{unused_port()}/shop",
        "TASTEMATCH_CORS_ORIGINS": ORIGIN,
    }
    with start_serve(env=env) as serving, wire(serving.port) as asked:
        for target in (METADATA, "/api/lists/new", "/api/restaurants/1", "/ready"):
            reply = asked.ask(target, fields={"Origin": ORIGIN})
            assert reply.status == 503
            assert int(reply["retry-after"]) >= 1
            assert reply["cache-control"] == "no-store"
            names = set(reply["access-control-expose-headers"].lower().split(", "))
            assert names >= EXPOSED


def test_no_shared_cache_may_keep_what_a_token_opened(
    asked: Wire, user: dict[str, str], service: dict[str, str]
) -> None:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            if "security" not in operation:
                continue
            target = path.format_map(PLACES)
            for fields in ({}, user, service, user | {"If-None-Match": "*"}):
                for query in ("", "?x=1"):
                    reply = asked.ask(target + query, method=method.upper(), fields=fields)
                    cache = reply["cache-control"]
                    assert cache.startswith("private") or cache == "no-store", target
                    assert "Authorization" in reply["vary"], (target, reply)


def test_another_users_validator_brings_the_own_list(asked: Wire, settings: Settings) -> None:
    first = asked.ask(LISTS, fields=_bearer(settings, PERSONAL))
    second = asked.ask(LISTS, fields=_bearer(settings, SHORT) | {"If-None-Match": first["etag"]})
    assert second.status == 200
    assert second.body != first.body
    # A new token of the same user finds what the old one left.
    renewed = _bearer(settings, PERSONAL) | {"If-None-Match": first["etag"]}
    assert asked.ask(LISTS, fields=renewed).status == 304


def test_ids_beyond_javascript_keep_every_digit(
    asked: Wire, user: dict[str, str], service: dict[str, str]
) -> None:
    digits = str(BEYOND_JAVASCRIPT).encode()
    lists = asked.ask(LISTS, fields=user).body
    assert lists.startswith(b"[" + digits)
    assert b'"id":%b,' % digits in asked.ask(METADATA).body
    detail = asked.ask(f"/api/restaurants/{BEYOND_JAVASCRIPT}")
    assert (detail.status, _strict(detail.body)["id"]) == (200, BEYOND_JAVASCRIPT)
    assert digits in detail.body
    assert asked.ask(f"/api/restaurants/{BEYOND_JAVASCRIPT - 1}").status == 404


# --- bodies and the protocol ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        *[(b, 400) for b in (b"{", b"[]", b"null", b'{"pin":NaN}', b'{"pin":Infinity}', b"\xff")],
        *[(b, 400) for b in (b'{"pin":true,"pin":false}', b"[" * 30_000, b'{"pin":true}x')],
        *[(b, 422) for b in (b'{"pin":1}', b'{"pin":null}', b'{"pin":1e400}', b'{"x":true}')],
        *[(b, 404) for b in (b'{"pin":true}', b"{}", b"")],
    ],
)
def test_bodies(asked: Wire, service: dict[str, str], body: bytes, status: int) -> None:
    reply = asked.ask(
        f"/api/snapshots/{PLACES['version']}/activate",
        method="POST",
        fields=service | {"Content-Type": "application/json"},
        body=body,
    )
    assert reply.status == status
    document = _strict(reply.body)
    assert document["status"] == status
    assert ("errors" in document) == (status == 422)


@pytest.mark.parametrize(
    "fields",
    [[], [("Host", "a"), ("Host", "b")], [("Host", "a,b")], [("Host", "a"), ("Host", "a")]],
)
@pytest.mark.parametrize("target", ["/health", LISTS, "/nowhere"])
def test_a_request_names_one_host(
    serving: Serving, target: str, fields: list[tuple[str, str]]
) -> None:
    with wire(serving.port) as connection:
        reply = connection.ask(target, fields=fields, host=None)
    assert reply.status == 400
    assert reply["connection"] == "close"
    assert _strict(reply.body)["code"] == "malformed-request"


@pytest.mark.parametrize(
    "fields",
    [
        {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"},
        {"Expect": "100-continue"},
        {"Range": "bytes=0-1"},
        {"If-Modified-Since": "Thu, 01 Jan 2099 00:00:00 GMT"},
    ],
)
def test_what_is_not_offered_is_passed_over(asked: Wire, fields: dict[str, str]) -> None:
    plain = asked.ask(METADATA)
    reply: Reply = asked.ask(METADATA, fields=fields)
    assert (reply.status, reply.body) == (200, plain.body)


@pytest.mark.parametrize("host", ["[", "a b", "\x7f", "a" * 5_000, "user@a:99999"])
def test_no_host_confuses_the_answer_to_a_wrong_method(serving: Serving, host: str) -> None:
    with wire(serving.port) as connection:
        reply = connection.ask(METADATA, method="DELETE", host=host)
    assert reply.status in (400, 405)
