"""Id lists: which rung answers, how lists are filled, and every header of the answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
import pytest

from shared.settings import Settings
from shared.snapshot.store import SnapshotStore
from tests.api.running import (
    BEYOND_JAVASCRIPT,
    CITY_ONLY,
    CITYLESS,
    OSAKA,
    PERSONAL,
    POPULAR,
    PREFERENCES,
    SHORT,
    SPEC,
    UNKNOWN,
    Api,
    running,
)
from tests.services.snapshots import SnapshotSpec, UserSpec, publish_snapshot

# No test changes what the API holds: all ask the same one, in its loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/api/recommendations"


@pytest.fixture
def api(standing_api: Api) -> Api:
    return standing_api


async def ids(api: Api, user_id: int, **query: str | int) -> list[int]:
    response = await api.client.get(PATH, params=query, headers=api.as_user(user_id))
    assert response.status_code == 200, response.text
    found: list[int] = response.json()
    return found


async def source(api: Api, user_id: int, **query: str | int) -> str:
    response = await api.client.get(PATH, params=query, headers=api.as_user(user_id))
    return response.headers["x-recommendation-source"]


# --- the ladder -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user_id", "rung"),
    [
        (PERSONAL, "personal"),
        (SHORT, "personal"),
        (PREFERENCES, "preferences"),
        (CITY_ONLY, "popular-city"),
        (CITYLESS, "popular"),
        (UNKNOWN, "popular"),
        (2**63 - 1, "popular"),
    ],
)
@pytest.mark.parametrize("list_name", ["for_you", "discover", "order_again"])
async def test_the_rung_of_each_user(api: Api, user_id: int, rung: str, list_name: str) -> None:
    assert await source(api, user_id, list=list_name) == rung


async def test_a_personal_list_is_the_head_as_it_stands(api: Api) -> None:
    assert await ids(api, PERSONAL) == [BEYOND_JAVASCRIPT, *OSAKA[:19]]


async def test_a_short_head_is_filled_from_the_city_then_from_everywhere(api: Api) -> None:
    head = [105, 102, 107]
    from_city = [i for i in OSAKA if i not in head]
    from_everywhere = [i for i in POPULAR if i not in {*head, *OSAKA}]
    assert await ids(api, SHORT, limit=50) == [*head, *from_city, *from_everywhere][:50]


async def test_discover_is_filled_without_anything_ordered(api: Api) -> None:
    found = await ids(api, SHORT, list="discover", limit=50)
    assert found[:2] == [102, 107]
    assert not {101, 105} & set(found)
    assert len(found) == len(set(found)) == 50


async def test_order_again_is_never_filled(api: Api) -> None:
    assert await ids(api, SHORT, list="order_again", limit=50) == [105, 101]
    assert await ids(api, SHORT, list="order_again", limit=1) == [105]


@pytest.mark.parametrize("user_id", [PREFERENCES, CITY_ONLY, CITYLESS, UNKNOWN])
async def test_order_again_of_users_without_orders_is_empty(api: Api, user_id: int) -> None:
    assert await ids(api, user_id, list="order_again") == []


async def test_a_known_user_without_orders_gets_what_the_city_likes(api: Api) -> None:
    assert await ids(api, CITY_ONLY, limit=5) == list(OSAKA[:5])


@pytest.mark.parametrize("list_name", ["for_you", "discover"])
@pytest.mark.parametrize("user_id", [UNKNOWN, CITYLESS])
async def test_everyone_else_gets_what_everybody_likes(
    api: Api, user_id: int, list_name: str
) -> None:
    assert await ids(api, user_id, list=list_name, limit=7) == list(POPULAR[:7])


@pytest.mark.parametrize("limit", [1, 2, 19, 20, 50])
@pytest.mark.parametrize("list_name", ["for_you", "discover"])
@pytest.mark.parametrize("user_id", [PERSONAL, SHORT, PREFERENCES, CITY_ONLY, UNKNOWN])
async def test_lists_hold_as_many_as_asked_and_none_twice(
    api: Api, user_id: int, list_name: str, limit: int
) -> None:
    found = await ids(api, user_id, list=list_name, limit=limit)
    assert len(found) == len(set(found)) == limit
    assert set(found) <= set(SPEC.restaurants)


async def test_a_smaller_limit_is_a_prefix(api: Api) -> None:
    assert (await ids(api, SHORT, limit=50))[:13] == await ids(api, SHORT, limit=13)


async def test_a_catalogue_of_three_gives_three(settings: Settings, store: SnapshotStore) -> None:
    user = UserSpec("personal", "Rome", for_you=(2,), order_again=(2,))
    spec = SnapshotSpec(restaurants={1: "Rome", 2: "Rome", 3: None}, users={5: user})
    manifest = publish_snapshot(store, spec)
    async with running(settings) as api:
        await api.serves(manifest.version)
        assert await ids(api, 5, limit=50) == [2, 1, 3]
        assert await ids(api, 5, limit=50, list="discover") == [1, 3]
        assert await ids(api, 6, limit=50) == [1, 2, 3]
        similar = await api.client.get("/api/restaurants/1/similar")
        assert similar.json() == []


async def test_a_catalogue_of_none_gives_none(settings: Settings, store: SnapshotStore) -> None:
    manifest = publish_snapshot(store, SnapshotSpec(restaurants={}, users={5: UserSpec()}))
    async with running(settings) as api:
        await api.serves(manifest.version)
        assert await ids(api, 5) == []
        assert await source(api, 5) == "popular"
        assert (await api.client.get("/api/restaurants/metadata")).json()["restaurants"] == []


async def test_ids_beyond_2_53_keep_their_digits(api: Api) -> None:
    response = await api.client.get(PATH, headers=api.as_user(BEYOND_JAVASCRIPT))
    assert response.content.startswith(b"[9007199254740993,")
    metadata = await api.client.get("/api/restaurants/metadata")
    assert b'"id":9007199254740993,' in metadata.content


# --- parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=51", "limit=-1", "limit=10.0", "limit=+5", "limit=%2B5", "limit=1_0"),
        *("limit=%205", "limit=5%20", "limit=1e1", "limit=", "limit=%D9%A3", "limit=true"),
        *("limit=2147483648", "limit=9223372036854775807", "limit=9223372036854775808"),
        *(f"limit={10**30}", f"limit={'9' * 400}", "limit=5&limit=5", "list=", "list=FOR_YOU"),
        *("list=for_you&list=for_you", "list=%00", "list=%ED%A0%80", "list=for_you%00"),
        *(f"list={'a' * 10_000}", "cuisines=Ramen", "ids=1", "token=x", "=1", "%00=1", "a"),
        *("limit=nan", "limit=5;list=discover", "&".join(f"p{n}=1" for n in range(100))),
    ],
)
async def test_values_out_of_range_and_unknown_parameters_are_refused(api: Api, query: str) -> None:
    for path in (PATH, f"{PATH}/detailed", f"/api/users/{PERSONAL}/recommendations"):
        response = await api.client.get(f"{path}?{query}", headers=api.as_user(PERSONAL))
        assert response.status_code == 422, query
        problem = response.json()
        assert problem["code"] == "invalid-input"
        assert problem["errors"]
        assert {"in", "name", "detail"} == set(problem["errors"][0])
        assert problem["errors"][0]["in"] == "query"


@pytest.mark.parametrize("query", ["limit=5&list=discover", "list=discover&limit=05", "&limit=5"])
async def test_spellings_that_mean_the_same(api: Api, query: str) -> None:
    response = await api.client.get(f"{PATH}?{query}", headers=api.as_user(PERSONAL))
    assert response.status_code == 200
    assert len(response.json()) == 5


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("0", 200),
        ("2147483648", 200),
        ("9223372036854775807", 200),
        ("9223372036854775808", 422),
        ("1" + "0" * 30, 422),
        *[
            (text, 422)
            for text in ("-1", "1e3", "%D9%A3", "1_000", "+5", "%205", "%00", "x", "1.0")
        ],
        ("", 404),
    ],
)
@pytest.mark.parametrize("form", ["", "/detailed"])
async def test_ids_in_the_path(api: Api, text: str, status: int, form: str) -> None:
    response = await api.client.get(
        f"/api/users/{text}/recommendations{form}", headers=api.as_service
    )
    assert response.status_code == status
    if status == 422:
        assert response.json()["errors"][0]["in"] == "path"


# --- headers ----------------------------------------------------------------------------------


async def test_every_header_of_the_contract(api: Api) -> None:
    response = await api.client.get(PATH, headers=api.as_user(PERSONAL))
    snapshot = api.resources.snapshots.active
    assert snapshot is not None
    headers = response.headers
    assert headers["content-type"] == "application/json"
    assert int(headers["content-length"]) == len(response.content)
    assert headers["cache-control"] == "private, no-cache"
    assert headers["vary"] == "Authorization, Origin, Accept-Encoding"
    assert headers["x-snapshot-version"] == snapshot.version
    assert headers["x-metadata-version"] == snapshot.manifest.metadata_version
    assert 0 <= int(headers["x-snapshot-age"]) < 60
    modified = parsedate_to_datetime(headers["last-modified"])
    assert timedelta() <= snapshot.manifest.created_at - modified < timedelta(seconds=1)


async def test_age_is_never_negative(settings: Settings, store: SnapshotStore) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    manifest = publish_snapshot(store, SPEC, created_at=tomorrow)
    async with running(settings) as api:
        await api.serves(manifest.version)
        response = await api.client.get(PATH, headers=api.as_user(PERSONAL))
        assert response.headers["x-snapshot-age"] == "0"


async def test_the_etag_names_user_list_limit_and_version_and_no_token(api: Api) -> None:
    version = api.resources.snapshots.require_active().version
    first = await api.client.get(PATH, headers=api.as_user(PERSONAL))
    second = await api.client.get(PATH, headers=api.as_user(PERSONAL, ttl_seconds=60))
    assert first.headers["etag"] == second.headers["etag"]
    assert first.headers["etag"] == f'"{PERSONAL}.for_you.20.{version}.0"'
    assert not first.headers["etag"].startswith("W/")
    tags = {first.headers["etag"]}
    for query in ("?limit=19", "?list=discover"):
        tags.add(
            (await api.client.get(PATH + query, headers=api.as_user(PERSONAL))).headers["etag"]
        )
    tags.add((await api.client.get(PATH, headers=api.as_user(SHORT))).headers["etag"])
    tags.add((await api.client.get(PATH + "/detailed", headers=api.as_user(SHORT))).headers["etag"])
    assert len(tags) == 5


@pytest.mark.parametrize("path", [PATH, f"{PATH}/detailed"])
@pytest.mark.parametrize(
    "form", ["{}", "W/{}", '"a", {}', '"a,b", W/{} , "c"', "*", " * ", '"", {}']
)
async def test_an_etag_the_client_has_is_answered_by_304(api: Api, path: str, form: str) -> None:
    whole = await api.client.get(path, headers=api.as_user(PERSONAL))
    etag = whole.headers["etag"]
    response = await api.client.get(
        path, headers={**api.as_user(PERSONAL), "If-None-Match": form.format(etag)}
    )
    assert response.status_code == 304
    assert response.content == b""
    kept = {"etag", "cache-control", "vary", "last-modified", "x-snapshot-version"}
    kept |= {"x-metadata-version", "x-recommendation-source", "x-snapshot-age"}
    for name in kept - {"x-snapshot-age"}:
        assert response.headers[name] == whole.headers[name]
    assert kept | {"x-request-id", "x-process-time", "server-timing"} <= set(response.headers)


@pytest.mark.parametrize("value", ['"y"', "y", "", "W/", '"', "{}x", '{},"'])
async def test_any_other_value_is_answered_in_full(api: Api, value: str) -> None:
    whole = await api.client.get(PATH, headers=api.as_user(PERSONAL))
    bare = whole.headers["etag"].strip('"')
    response = await api.client.get(
        PATH, headers={**api.as_user(PERSONAL), "If-None-Match": value.format(bare)}
    )
    assert response.status_code == 200
    assert response.content == whole.content


async def test_another_users_etag_is_answered_with_ones_own_list(api: Api) -> None:
    theirs = await api.client.get(PATH, headers=api.as_user(PERSONAL))
    mine = await api.client.get(
        PATH, headers={**api.as_user(SHORT), "If-None-Match": theirs.headers["etag"]}
    )
    assert mine.status_code == 200
    assert mine.json() != theirs.json()


async def test_if_none_match_on_several_lines(api: Api) -> None:
    etag = (await api.client.get(PATH, headers=api.as_user(PERSONAL))).headers["etag"]
    lines = [("If-None-Match", '"a"'), ("If-None-Match", etag), *api.as_user(PERSONAL).items()]
    assert (await api.client.get(PATH, headers=lines)).status_code == 304


@pytest.mark.parametrize("path", [PATH, f"{PATH}/detailed", f"/api/users/{SHORT}/recommendations"])
async def test_head_is_get_without_the_body(api: Api, path: str) -> None:
    get = await api.client.get(path, headers=api.as_user(SHORT))
    head = await api.client.head(path, headers=api.as_user(SHORT))
    assert head.status_code == 200
    assert head.content == b""
    assert _stable(head) == _stable(get)


async def test_both_forms_of_the_path_give_the_same(api: Api) -> None:
    mine = await api.client.get(PATH, headers=api.as_user(SHORT))
    theirs = await api.client.get(f"/api/users/{SHORT}/recommendations", headers=api.as_service)
    assert theirs.content == mine.content
    links = (theirs.links["next"]["url"], mine.links["next"]["url"])
    assert [link.partition("?")[0] for link in links] == [theirs.url.path, mine.url.path]
    assert _stable(theirs) | {"link": ""} == _stable(mine) | {"link": ""}


async def test_before_the_first_snapshot(empty_api: Api) -> None:
    for path in (PATH, f"{PATH}/detailed", f"/api/users/{SHORT}/recommendations"):
        response = await empty_api.client.get(path, headers=empty_api.as_user(SHORT))
        assert response.status_code == 503
        assert response.json()["code"] == "snapshot-unavailable"
        assert int(response.headers["retry-after"]) > 0
        assert response.headers["cache-control"] == "no-store"


def _stable(response: httpx.Response) -> dict[str, str]:
    changing = {"x-request-id", "x-process-time", "server-timing", "x-snapshot-age"}
    return {name: value for name, value in response.headers.items() if name not in changing}
