"""Statements about restaurants: one of them, and pages of the catalogue.

A page is found by one of two ways. *Along the order*: an index gives the rows in the order that is
asked for, and those that do not pass are left out until the page is full: quick where many pass.
*By terms*: those of a word, city or cuisine that few restaurants have, or of all together, give
the rows, which are then sorted. `term_counts` and `shared_count`, which end at RARE, tell which
way is less work. Both ways compare the same columns of a row, so that they give the same page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    DateTime,
    Dialect,
    Float,
    Select,
    Subquery,
    Text,
    and_,
    func,
    intersect,
    literal,
    literal_column,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

from shared.db.models import Key, Restaurant, RestaurantTerm
from shared.search_keys import (
    BEGINNING_MARK,
    CITY_MARK,
    CUISINE_MARK,
    MIN_INNER_CHARS,
    TERM_CHARS,
    is_inner_word,
)

RARE: Final = 2000
# No planner looks through a limit: rows are found by the term first, whatever else they must be.
_FENCE: Final = 100 * RARE
_LAST_CHAR = "\U0010ffff"  # after every character that words hold


class StoredInstant(TypeDecorator[str]):
    """An instant as text that means exactly the stored one, down to how SQLite has written it."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "sqlite":
            return value
        return datetime.fromisoformat(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return str(value if dialect.name == "sqlite" else value.isoformat())


class Term(NamedTuple):
    """Terms from `first` to `last`, both included."""

    first: str
    last: str


@dataclass(frozen=True, slots=True)
class CatalogueFilter:
    """What restaurants have to be; keys and words as `shared.search_keys` makes them, not empty."""

    words: tuple[str, ...] = ()
    city_key: str | None = None
    cuisine_key: str | None = None
    min_rating: float | None = None
    price_ranges: tuple[int, ...] = ()

    def terms(self) -> list[Term]:
        """Each gives all restaurants that pass, and others."""
        found = [_term_of(word) for word in self.words]
        for mark, key in ((CITY_MARK, self.city_key), (CUISINE_MARK, self.cuisine_key)):
            if key is not None:
                found.append(Term(mark + key, mark + key))
        return found


@dataclass(frozen=True, slots=True)
class _Order:
    """`key` takes the columns of restaurants."""

    key: Callable[[Any], ColumnElement[Any]]
    type_: TypeEngine[Any]
    is_descending: bool = False


_RESTAURANTS = Restaurant.__table__
_PROJECTION = ("id", "name", "cuisine_type", "rating", "price_range", "city", "image_url")
# As the indexes have them: the number that stands for no rating is a literal.
_ORDERS = {
    "name": _Order(lambda c: c.name_key, Key),
    "rating": _Order(lambda c: func.coalesce(c.rating, literal_column("6")), Float()),
    "-rating": _Order(lambda c: func.coalesce(-c.rating, literal_column("6")), Float()),
    "newest": _Order(
        lambda c: type_coerce(c.created_at, StoredInstant), StoredInstant(), is_descending=True
    ),
}
SORTS = tuple(_ORDERS)
PAGE_COLUMNS: Final = (*_PROJECTION, "position")


def restaurant_detail(restaurant_id: int) -> Select[*tuple[Any, ...]]:
    """Every column a visitor may see of one active restaurant: one row or none."""
    return select(
        Restaurant.id,
        Restaurant.name,
        Restaurant.cuisine_type,
        Restaurant.description,
        Restaurant.rating,
        Restaurant.price_range,
        Restaurant.city,
        Restaurant.latitude,
        Restaurant.longitude,
        Restaurant.image_url,
        Restaurant.is_active,
    ).where(Restaurant.id == restaurant_id, Restaurant.is_active.is_(True))


def term_counts(terms: Sequence[Term]) -> Select[*tuple[Any, ...]]:
    """One row: how many entries each term has, RARE + 1 where there are more."""
    counts = []
    for term in terms:
        # In the order of the index, or a planner may look for common ones in the whole table.
        some = (
            select(RestaurantTerm.restaurant_id)
            .where(_has(term))
            .order_by(RestaurantTerm.term, RestaurantTerm.restaurant_id)
            .limit(RARE + 1)
            .subquery()
        )
        counts.append(select(func.count()).select_from(some).scalar_subquery())
    return select(*counts)


def shared_count(terms: Sequence[Term]) -> Select[*tuple[Any, ...]]:
    """How many restaurants have an entry of every term, RARE + 1 where there are more."""
    some = select(_ids(terms).subquery()).limit(RARE + 1).subquery()
    return select(func.count()).select_from(some)


def catalogue_page(
    wanted: CatalogueFilter,
    *,
    sort: str,
    after: tuple[Any, int] | None,
    by: Sequence[Term],
    limit: int,
) -> Select[*tuple[Any, ...]]:
    """Active restaurants that pass, in the order of `sort` (one of SORTS), ties by id.

    Columns: PAGE_COLUMNS, the metadata projection and the sort key of the row. `after`: position
    and id of the last row before this page. `by`: find them by these of `wanted.terms()`; none:
    along the order.
    """
    order = _ORDERS[sort]
    columns: Any = _found(by).c if by else _RESTAURANTS.c
    key, row_id = order.key(columns), columns.id
    is_active = [] if by else [_RESTAURANTS.c.is_active.is_(True)]
    passing = (
        select(*(columns[name] for name in _PROJECTION), key.label("position"))
        .where(*is_active, *_conditions(wanted, columns))
        .limit(limit)
    )
    if after is None:
        return passing.order_by(*_directed(order, key, row_id))
    position, last_id = literal(after[0], order.type_), literal(after[1], BigInteger)
    is_later = key < position if order.is_descending else key > position
    is_tied = and_(key == position, row_id < last_id if order.is_descending else row_id > last_id)
    # Apart, each is one stretch of an index; SQLite would look at all ties of a page's border.
    tied = passing.where(is_tied).order_by(*_directed(order, row_id))
    later = passing.where(is_later).order_by(*_directed(order, key, row_id))
    page = union_all(select(tied.subquery()), select(later.subquery())).subquery()
    return select(page).order_by(*_directed(order, page.c.position, page.c.id)).limit(limit)


def _found(by: Sequence[Term]) -> Subquery:
    return (
        select(_RESTAURANTS)
        .where(_RESTAURANTS.c.is_active.is_(True), _RESTAURANTS.c.id.in_(_ids(by)))
        .limit(_FENCE)
        .subquery()
    )


def _ids(terms: Sequence[Term]) -> Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]]:
    ids = [select(RestaurantTerm.restaurant_id).where(_has(term)) for term in terms]
    return ids[0] if len(ids) == 1 else intersect(*ids)


def _term_of(word: str) -> Term:
    if is_inner_word(word):
        first = word[:TERM_CHARS]
    else:
        first = BEGINNING_MARK + word
        if len(word) == MIN_INNER_CHARS - 1:
            return Term(first, first)
    return Term(first, first + _LAST_CHAR)


def _directed(order: _Order, *columns: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    return [column.desc() if order.is_descending else column for column in columns]


def _has(term: Term) -> ColumnElement[bool]:
    if term.first == term.last:
        return RestaurantTerm.term == term.first
    return and_(RestaurantTerm.term >= term.first, RestaurantTerm.term < term.last)


def _conditions(wanted: CatalogueFilter, columns: Any) -> list[ColumnElement[bool]]:
    """Words hold no character that means something to LIKE."""
    conditions: list[ColumnElement[bool]] = []
    for word in wanted.words:
        text = word[:TERM_CHARS]
        pattern = f"%{text}%" if is_inner_word(text) else f"% {text}%"
        conditions.append(columns.search_text.like(pattern))
    if wanted.city_key is not None:
        conditions.append(columns.city_key == wanted.city_key)
    if wanted.cuisine_key is not None:
        conditions.append(columns.cuisine_keys.contains(f"|{wanted.cuisine_key}|", autoescape=True))
    if wanted.min_rating is not None:
        conditions.append(columns.rating >= wanted.min_rating)
    if wanted.price_ranges:
        conditions.append(columns.price_range.in_(wanted.price_ranges))
    return conditions
