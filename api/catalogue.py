"""Pages of the catalogue: from a query to what the database is asked, and from rows to an answer.

A page is asked for with one restaurant more, which tells whether there is a next one. Its cursor
holds where the page ends: the sort key and the id of its last restaurant, as the database has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from api.answers import HeaderField
from api.cursors import CursorParameter, CursorScope, open_cursor, seal_cursor
from api.parameters import (
    ChoiceParameter,
    IntegerParameter,
    RepeatedParameter,
    TextParameter,
    read_query,
)
from shared.parsing import ParseError, parse_restaurant_rating
from shared.search_keys import filter_key, is_inner_word, search_words

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from shared.db.restaurants import Term

CATALOGUE_PATH = "/api/restaurants"
DEFAULT_LIMIT = 20
MAX_LIMIT = 50
MAX_NAME_CHARS = 200
MAX_SEARCH_CHARS = 100
MAX_WORDS = 8
PRICE_RANGES = 4


class Search(NamedTuple):
    """A text and its distinct words, folded: none where it holds no letter, digit or symbol."""

    text: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SearchParameter:
    name: str
    description: str

    def read(self, text: str | None) -> Search | None:
        value = self._text.read(text)
        if value is None:
            return None
        words = search_words(value)
        if len(words) > MAX_WORDS:
            raise ParseError(f"holds more than {MAX_WORDS} words")
        return Search(value, words)

    def schema(self) -> dict[str, Any]:
        return self._text.schema()

    @property
    def _text(self) -> TextParameter:
        return TextParameter(self.name, MAX_SEARCH_CHARS, self.description)


@dataclass(frozen=True, slots=True)
class RatingParameter:
    name: str
    description: str

    def read(self, text: str | None) -> float | None:
        return None if text is None else parse_restaurant_rating(text)

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": 0, "maximum": 5}


PARAMETERS = (
    TextParameter(
        "cuisine", MAX_NAME_CHARS, "Only restaurants that have this cuisine, in any case."
    ),
    TextParameter("city", MAX_NAME_CHARS, "Only restaurants of this city, in any case."),
    RatingParameter("min_rating", "Only restaurants rated so or better."),
    RepeatedParameter(
        IntegerParameter(
            "price_range", 1, PRICE_RANGES, 1, "Only restaurants of one of these price ranges."
        ),
        PRICE_RANGES,
    ),
    SearchParameter(
        "q",
        "Words that the name or the cuisines hold, without regard to case and accents. Words of"
        " one or two letters are looked for at the beginning of others, longer ones anywhere.",
    ),
    ChoiceParameter(
        "sort",
        ("name", "-rating", "rating", "newest"),
        "Ties are ordered by id; restaurants without a rating come last.",
    ),
    IntegerParameter("limit", 1, MAX_LIMIT, DEFAULT_LIMIT, "How many restaurants at most."),
    CursorParameter(),
)


@dataclass(frozen=True, slots=True)
class CatalogueQuery:
    """`words`, keys: see `shared.search_keys`; empty ones match nothing, None everything."""

    words: tuple[str, ...] | None
    city_key: str | None
    cuisine_key: str | None
    min_rating: float | None
    price_ranges: tuple[int, ...]
    sort: str
    limit: int
    after: tuple[Any, int] | None
    scope: CursorScope

    @property
    def is_hopeless(self) -> bool:
        return self.words == () or "" in (self.city_key, self.cuisine_key)


def read_catalogue_query(raw: bytes, *, key: bytes) -> CatalogueQuery:
    """`key`: that of all cursors. Raises InvalidInput, MalformedInput."""
    values = read_query(raw, PARAMETERS)
    search: Search | None = values["q"]
    city, cuisine, min_rating = values["city"], values["cuisine"], values["min_rating"]
    price_ranges = tuple(sorted(set(values["price_range"])))
    given = [("q", None if search is None else search.text), ("city", city)]
    given += [("cuisine", cuisine), ("min_rating", None if min_rating is None else f"{min_rating}")]
    filters = [(name, value) for name, value in given if value is not None]
    filters += [("price_range", str(price_range)) for price_range in price_ranges]
    filters.append(("sort", values["sort"]))
    scope = CursorScope(CATALOGUE_PATH, "anyone", tuple(filters))
    after = None
    if values["cursor"] is not None:
        position, restaurant_id = open_cursor(key, scope, values["cursor"])
        after = (position, restaurant_id)
    return CatalogueQuery(
        words=None if search is None else _needed(search.words),
        city_key=None if city is None else filter_key(city),
        cuisine_key=None if cuisine is None else filter_key(cuisine),
        min_rating=min_rating,
        price_ranges=price_ranges,
        sort=values["sort"],
        limit=values["limit"],
        after=after,
        scope=scope,
    )


async def find_page(connection: AsyncConnection, query: CatalogueQuery) -> list[dict[str, Any]]:
    """Rows of the page and one more, if there is one: projection and `position`."""
    # The models are loaded by the first request that needs them.
    from shared.db.restaurants import (
        PAGE_COLUMNS,
        RARE,
        CatalogueFilter,
        catalogue_page,
        shared_count,
        term_counts,
    )

    wanted = CatalogueFilter(
        words=query.words or (),
        city_key=query.city_key,
        cuisine_key=query.cuisine_key,
        min_rating=query.min_rating,
        price_ranges=query.price_ranges,
    )
    by: list[Term] = []
    if terms := wanted.terms():
        counts = (await connection.execute(term_counts(terms))).one()
        fewest = min(counts)
        if fewest <= RARE:
            by = [terms[tuple(counts).index(fewest)]]
        elif len(terms) > 1:
            fewest = (await connection.execute(shared_count(terms))).scalar_one()
            by = terms if fewest <= RARE else []
        if not fewest:
            return []
    statement = catalogue_page(
        wanted, sort=query.sort, after=query.after, by=by, limit=query.limit + 1
    )
    # The keys of the driver's own mappings are no plain text, which JSON needs.
    rows = await connection.execute(statement)
    return [dict(zip(PAGE_COLUMNS, row, strict=True)) for row in rows]


def catalogue_document(
    rows: list[dict[str, Any]], query: CatalogueQuery, *, key: bytes
) -> tuple[dict[str, Any], list[HeaderField]]:
    """The document of a page and its `Link`, where it has a next one. Takes `position` off rows."""
    positions = [row.pop("position") for row in rows]
    items = rows[: query.limit]
    document: dict[str, Any] = {"items": items, "next_cursor": None}
    if len(rows) <= query.limit:
        return document, []
    position = [positions[query.limit - 1], items[-1]["id"]]
    cursor = seal_cursor(key, query.scope, position)
    document["next_cursor"] = cursor
    pairs = (*query.scope.filters, ("limit", str(query.limit)), ("cursor", cursor))
    link = f'<{CATALOGUE_PATH}?{urlencode(pairs)}>; rel="next"'
    return document, [(b"link", link.encode())]


def _needed(words: tuple[str, ...]) -> tuple[str, ...]:
    """Without those that are found wherever another one is, and so say nothing more."""
    return tuple(
        word
        for word in words
        if not is_inner_word(word) or not any(word in other for other in words if other != word)
    )
