"""Pages of the catalogue over HTTP, on both databases: order, filters, search, cursors."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from shared.db import restaurants
from shared.settings import Settings, load_settings
from tests.api.running import BEYOND_JAVASCRIPT, ORIGIN, Api, running
from tests.services.in_process import Done

Row = dict[str, Any]

RATINGS = (0, 0.5, 1, 1.5, 2, 2.5, 3.25, 4, 4.1, 5)
NAMES = {
    1: "Zoë's Café",
    2: "zoe bakery",
    3: "東京寿司",
    4: "Smørrebrød Łódź",
    5: "100% Vegan_Bar",
    6: "ΟΥΖΕΡΊ Σίσυφος",
    7: "L'Angelo",
    8: "PIZZERIA İstanbul",
    9: "ร้านผัดไทย",
    10: "\u00c5ngstro\u0308m",
    11: "A\u030angström",
    12: "김밥천국",
    13: "closed Zoë",
    14: "🍕 Express",
    BEYOND_JAVASCRIPT: "Beyond",
    BEYOND_JAVASCRIPT - 1: "Beyond",
    2**63 - 1: "Last",
}


def many() -> list[Row]:
    """300 restaurants with 10 ratings, 60 without one, 25 names, and those of NAMES."""
    rows: list[Row] = [
        {
            "id": 1000 + number,
            "name": f"Nº {number * 7 % 25} grill",
            "cuisine_type": ("Grill|Café", "Ramen", "")[number % 3],
            "rating": "" if number % 5 == 0 else RATINGS[number * 3 % 10],
            "price_range": ("", 1, 2, 3, 4)[number * 7 % 5],
            "city": ("Osaka", "Łódź", "New  York", "")[number % 4],
        }
        for number in range(300)
    ]
    for restaurant_id, name in NAMES.items():
        cuisine = "Pizza|Döner" if restaurant_id == 8 else ""
        rows.append(
            {"id": restaurant_id, "name": name, "cuisine_type": cuisine, "city": "Names"}
            | {"is_active": "false" if name.startswith("closed") else "true"}
        )
    return rows


@pytest.fixture
def shop_settings(database_url: str, tmp_path: Path) -> Settings:
    return load_settings(
        {
            "TASTEMATCH_DATA_DIR": str(tmp_path / "data"),
            "DATABASE_URL": database_url,
            "TASTEMATCH_CORS_ORIGINS": ORIGIN,
        }
    )


@pytest.fixture
def stock(
    tastematch: Callable[..., Done], database_url: str, tmp_path: Path
) -> Callable[[list[Row]], None]:
    """Imports restaurants as an operator does."""

    def run_import(rows: list[Row]) -> None:
        folder = tmp_path / "dataset"
        folder.mkdir(exist_ok=True)
        with (folder / "restaurants.csv").open("w", newline="", encoding="utf-8") as file:
            columns = ("id", "name", "cuisine_type", "rating", "price_range", "city", "is_active")
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        done = tastematch("import", folder, env={"DATABASE_URL": database_url})
        assert done.returncode == 0, done.stderr

    return run_import


@pytest.fixture
async def shop(shop_settings: Settings, stock: Callable[[list[Row]], None]) -> AsyncIterator[Api]:
    stock(many())
    async with running(shop_settings) as api:
        yield api


async def page(api: Api, query: str) -> Row:
    response = await api.client.get(f"/api/restaurants?{query}")
    assert response.status_code == 200, response.text
    document: Row = response.json()
    assert set(document) == {"items", "next_cursor"}
    follows = document["next_cursor"] is not None
    assert ("link" in response.headers) == follows
    return document


async def walk(api: Api, query: str) -> list[Row]:
    """All items, by the links, as a client follows them."""
    items: list[Row] = []
    address = f"/api/restaurants?{query}"
    while True:
        response = await api.client.get(address)
        assert response.status_code == 200, response.text
        items += response.json()["items"]
        if "next" not in response.links:
            assert response.json()["next_cursor"] is None
            return items
        address = response.links["next"]["url"]


def ids(items: list[Row]) -> list[int]:
    return [item["id"] for item in items]


async def test_every_order_is_whole(shop: Api) -> None:
    known = {item["id"]: item for item in await walk(shop, "limit=50")}
    assert set(known) == {row["id"] for row in many()} - {13}
    rated = [item for item in known.values() if item["rating"] is not None]
    unrated = sorted(i for i, item in known.items() if item["rating"] is None)
    expected = {
        "rating": [*ids(sorted(rated, key=lambda r: (r["rating"], r["id"]))), *unrated],
        "-rating": [*ids(sorted(rated, key=lambda r: (-r["rating"], r["id"]))), *unrated],
        # All came in one import, the later ones last.
        "newest": sorted(known, reverse=True),
    }
    for sort, order in expected.items():
        for limit in (7, 50):
            assert ids(await walk(shop, f"sort={sort}&limit={limit}")) == order
    by_name = ids(await walk(shop, "sort=name&limit=7"))
    assert by_name == ids(await walk(shop, "limit=50"))
    assert by_name[:6] == [5, 10, 11, BEYOND_JAVASCRIPT - 1, BEYOND_JAVASCRIPT, 7]
    position = {restaurant_id: at for at, restaurant_id in enumerate(by_name)}
    # Code points of what is folded: Latin, Greek, Thai, Han, Hangul, symbols.
    assert sorted((2, 1, 6, 9, 3, 12, 14), key=position.__getitem__) == [2, 1, 6, 9, 3, 12, 14]
    assert ids(await walk(shop, "sort=-rating&limit=1&min_rating=4.1")) == [
        i for i in expected["-rating"] if (known[i]["rating"] or 0) >= 4.1
    ]


@pytest.mark.parametrize("rare", [2000, 2], ids=["seldom", "common"])
async def test_what_a_search_finds(shop: Api, monkeypatch: pytest.MonkeyPatch, rare: int) -> None:
    """Whichever way the database is asked to go."""
    monkeypatch.setattr(restaurants, "RARE", rare)
    for text, found in {
        "zoe": {1, 2},
        "ZOË'S": {1},
        "zoes caf\u00e9": {1},
        "cafe zoe": {1},
        "寿司": {3},
        "司": {3},
        "smorrebrod": {4},
        "SMØRREBRØD lodz": {4},
        "100%": {5},
        "gan_bar": {5},
        "%": set(),
        "_": set(),
        "σισυφοσ": {6},
        "ουζερι": {6},
        "angelo": {7},
        "la": {7, 2**63 - 1},
        "an": {10, 11},
        "ngel": {7},
        "istanbul doner": {8},
        "İSTANBUL": {8},
        "izz": {8},
        "ผัดไทย": {9},
        "ngstrom": {10, 11},
        "A\u030aNGSTRÖM": {10, 11},
        "천국": {12},
        "김밥": {12},
        "🍕": {14},
        "closed": set(),
        "zoe smorrebrod": set(),
        "' OR 1=1--": set(),
        "\u202e": set(),
        "x" * 100: set(),
    }.items():
        items = await walk(shop, f"q={quote(text)}&limit=50")
        assert {item["id"] for item in items} == found, text
    assert len(await walk(shop, "q=grill&limit=50")) == 300
    assert len(await walk(shop, "q=cafe+gril&limit=7&sort=-rating")) == 100


@pytest.mark.parametrize("rare", [2000, 12], ids=["seldom", "common"])
async def test_filters_hold_together(shop: Api, monkeypatch: pytest.MonkeyPatch, rare: int) -> None:
    monkeypatch.setattr(restaurants, "RARE", rare)
    rows = [row for row in many() if row["id"] != 13]
    for query, passes in (
        ("city=Osaka", lambda r: r["city"] == "Osaka"),
        ("city=lodz", lambda r: r["city"] == "Łódź"),
        ("city=%20NEW%20york", lambda r: r["city"] == "New  York"),
        ("cuisine=cafe", lambda r: "Café" in r["cuisine_type"]),
        ("cuisine=CAF%C3%89&city=osaka", lambda r: r["id"] >= 1000 and (r["id"] - 1000) % 12 == 0),
        ("cuisine=caf", lambda _: False),
        ("cuisine=%25", lambda _: False),
        ("city=%CC%81", lambda _: False),
        ("price_range=1&price_range=4&price_range=1", lambda r: r.get("price_range") in (1, 4)),
        ("min_rating=4.1", lambda r: (r.get("rating") or -1) >= 4.1),
        ("min_rating=0", lambda r: r.get("rating", "") != ""),
        ("q=ramen&min_rating=2&price_range=2", ramen),
    ):
        items = await walk(shop, f"{query}&limit=50")
        assert sorted(ids(items)) == sorted(r["id"] for r in rows if passes(r)), query


def ramen(row: Row) -> bool:
    is_cheap = row.get("price_range") == 2
    return row["cuisine_type"] == "Ramen" and (row["rating"] or 0) >= 2 and is_cheap


async def test_ids_beyond_javascript_keep_their_digits(shop: Api) -> None:
    response = await shop.client.get("/api/restaurants?q=beyond")
    for restaurant_id in (BEYOND_JAVASCRIPT - 1, BEYOND_JAVASCRIPT):
        assert f'"id":{restaurant_id},' in response.text
    first = await page(shop, "q=beyond&limit=1")
    second = await page(shop, f"q=beyond&limit=1&cursor={first['next_cursor']}")
    assert ids(first["items"] + second["items"]) == [BEYOND_JAVASCRIPT - 1, BEYOND_JAVASCRIPT]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("sort", ["name", "rating", "-rating", "newest"])
async def test_a_walk_while_restaurants_appear(
    shop: Api, stock: Callable[[list[Row]], None], sort: str
) -> None:
    at_start = {row["id"] for row in many()} - {13}
    seen: list[int] = []
    query = f"sort={sort}&limit=50"
    cursor = ""
    wave = 0
    while True:
        document = await page(shop, query + cursor)
        seen += ids(document["items"])
        if document["next_cursor"] is None:
            break
        cursor = f"&cursor={document['next_cursor']}"
        wave += 1
        new = [
            {"id": wave * 100_000 + n, "name": f"Nº {n}", "rating": n % 6, "city": "Osaka"}
            for n in range(50)
        ]
        if wave <= 2:
            stock([*new, {"id": 13, "name": NAMES[13], "is_active": "true"}])
    assert len(seen) == len(set(seen))
    assert at_start <= set(seen)


async def test_cursors_are_good_for_their_pages_only(shop: Api) -> None:
    cursor = (await page(shop, "city=osaka&limit=2"))["next_cursor"]
    again = await page(shop, f"city=osaka&limit=3&cursor={cursor}")
    assert len(again["items"]) == 3
    flipped = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    for query in (
        f"cursor={cursor}",
        f"city=osaka&sort=rating&cursor={cursor}",
        f"city=lodz&cursor={cursor}",
        f"city=osaka&price_range=1&cursor={cursor}",
        f"city=osaka&cursor={flipped}",
        f"city=osaka&cursor={cursor}AAAA",
        *(f"cursor={text}" for text in ("", "x", "%00", "%ED%A0%80", "1" * 600, "W10")),
    ):
        response = await shop.client.get(f"/api/restaurants?{query}")
        assert response.status_code == 400, query
        assert response.json()["code"] == "malformed-input"
    foreign = await shop.client.get(f"/api/jobs?cursor={cursor}", headers=shop.as_service)
    assert foreign.status_code == 400


BAD_VALUES = [
    *((f"limit={text}", "limit") for text in ("0", "51", "1.0", "-1", "", "%D9%A1", "9" * 40)),
    *((f"min_rating={text}", "min_rating") for text in ("nan", "inf", "-inf", "1e400", "5.1")),
    *((f"min_rating={text}", "min_rating") for text in ("-1", "", "4,5", "%204", "0x1")),
    *((f"price_range={text}", "price_range") for text in ("0", "5", "", "1,2", "one")),
    ("price_range=1&" * 4 + "price_range=2", "price_range"),
    *((f"sort={text}", "sort") for text in ("", "-name", "Rating", "%00")),
    *((f"{n}={text}", n) for n in ("q", "city", "cuisine") for text in ("", "%00", "%ED%A0%80")),
    *((f"{n}={'x' * 10_000}", n) for n in ("q", "city", "cuisine")),
    ("q=a+b+c+d+e+f+g+h+i", "q"),
    ("q=a&q=b", "q"),
    ("page=2", "page"),
    ("offset=7", "offset"),
]


async def test_bad_values_are_named(empty_api: Api) -> None:
    for query, name in BAD_VALUES:
        response = await empty_api.client.get(f"/api/restaurants?{query}")
        assert response.status_code == 422, query
        assert response.headers["content-type"] == "application/problem+json"
        assert [error["name"] for error in response.json()["errors"]] == [name]


async def test_a_database_that_is_away_is_503(settings: Settings, tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}", "postgresql://nobody@127.0.0.1:9/nothing"):
        async with running(settings.model_copy(update={"database_url": url})) as api:
            response = await api.client.get("/api/restaurants?q=zoe")
            assert response.status_code == 503, response.text
            assert response.json()["code"] == "database-unavailable"
            assert int(response.headers["retry-after"]) > 0
            # What no restaurant can match needs no database.
            assert (await page(api, "q=%25"))["items"] == []


async def test_a_page_is_asked_for_again(shop: Api) -> None:
    path = "/api/restaurants?limit=3&city=osaka"
    whole = await shop.client.get(path, headers={"Origin": ORIGIN})
    assert whole.headers["cache-control"] == "public, no-cache"
    assert "Link" in whole.headers["access-control-expose-headers"]
    etag = whole.headers["etag"]
    for held in (etag, f"W/{etag}", f'"a", {etag}', "*"):
        response = await shop.client.get(path, headers={"If-None-Match": held})
        assert (response.status_code, response.content) == (304, b"")
        for header in ("etag", "cache-control", "vary", "link"):
            assert response.headers[header] == whole.headers[header]
    assert (await shop.client.get(path, headers={"If-None-Match": '"a"'})).status_code == 200
    head = await shop.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.headers["link"] == whole.headers["link"]
