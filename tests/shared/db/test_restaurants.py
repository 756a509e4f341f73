"""Pages of the catalogue: the plans that both databases make of the statements."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Select, text

from shared.db.engine import sync_engine
from shared.db.restaurants import (
    RARE,
    SORTS,
    CatalogueFilter,
    catalogue_page,
    shared_count,
    term_counts,
)
from shared.db.targets import RESTAURANTS
from shared.db.upserts import Staging
from shared.settings import load_settings

ROWS = 10_000  # a fourth of them is more than RARE
COMMON = ("Restaurant", "Pizzeria", "Café", "Kitchen")
CUISINES = ("Italian", "Sushi", "Thai", "Burger", "Vegan")


@pytest.fixture
def connection(database_url: str, tmp_path: Path) -> Iterator[Connection]:
    """A catalogue in which `Rare` cities, `Zyzzyva` and the cuisine `Fusion` are seldom."""
    settings = load_settings({"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path)})
    rng = random.Random(7)
    rows = [
        (
            number,
            f"{rng.choice(COMMON)} {'Zyzzyva' if number % 1000 == 0 else f'no{rng.random():.5f}'}",
            "Fusion" if number % 500 == 0 else "|".join(rng.sample(CUISINES, 2)),
            None,
            rng.choice((None, 1, 2.5, 3, 4, 4.5, 5)),
            rng.choice((None, 1, 2, 3, 4)),
            "Rare" if number % 400 == 0 else rng.choice(("Rome", "Osaka", "Lima")),
            None,
            None,
            None,
            number % 20 != 0 or number % 400 == 0,
            number + 1,
        )
        for number in range(1, ROWS + 1)
    ]
    engine = sync_engine(settings)
    with engine.connect() as opened:
        staging = Staging(opened, RESTAURANTS)
        staging.add(rows)
        staging.merge()
        if opened.dialect.name == "postgresql":
            opened.execute(text("ANALYZE"))  # as its daemon does once many rows have changed
        opened.commit()
        yield opened
    engine.dispose()


def plan(connection: Connection, statement: Select[Any]) -> str:
    verb = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    compiled = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
    rows = connection.exec_driver_sql(f"{verb} {compiled.replace('%%', '%')}".replace("%", "%%"))
    return "\n".join(str(row[-1]) for row in rows)


def assert_indexed(found: str, *names: str) -> None:
    """No table is read whole, and each of the indexes is used."""
    assert "Seq Scan" not in found, found
    assert not re.search("SCAN restaurant(s|_terms)(?! USING INDEX)", found), found
    for name in names:
        assert name in found, found


INDEXES = {
    "name": "ix_restaurants_name",
    "rating": "ix_restaurants_lowest",
    "-rating": "ix_restaurants_highest",
    "newest": "ix_restaurants_newest",
}
SELDOM = (
    CatalogueFilter(words=("zyz",)),
    CatalogueFilter(words=("zzyv", "pizz")),
    CatalogueFilter(city_key="rare"),
    CatalogueFilter(cuisine_key="fusion", city_key="rome", min_rating=2),
)
COMMONLY = (
    CatalogueFilter(min_rating=4.5, price_ranges=(1, 4)),
    CatalogueFilter(city_key="rome"),
    CatalogueFilter(words=("no", "itch"), cuisine_key="thai", city_key="osaka"),
)


def test_pages_at_the_size_of_a_city(connection: Connection) -> None:
    """One test, as filling the catalogue takes longer than all looks at it."""
    no_page_reads_a_table_whole(connection)
    both_ways_give_the_same_pages(connection)
    counts_end_where_a_term_is_common(connection)


def no_page_reads_a_table_whole(connection: Connection) -> None:
    is_sqlite = connection.dialect.name == "sqlite"
    terms_key = "PRIMARY KEY (term" if is_sqlite else "pk_restaurant_terms"
    for sort in SORTS:
        for wanted in (CatalogueFilter(), *COMMONLY):
            walked = catalogue_page(wanted, sort=sort, after=None, by=(), limit=500)
            assert_indexed(plan(connection, walked.limit(21)), INDEXES[sort])
            last = connection.execute(walked).all()[-1]
            after = (last.position, last.id)
            onward = catalogue_page(wanted, sort=sort, after=after, by=(), limit=21)
            found = plan(connection, onward)
            assert_indexed(found, INDEXES[sort])
            assert not is_sqlite or f"{INDEXES[sort]} (" in found, "a page is not sought from 1"
        for wanted in SELDOM:
            by = [
                term for term in wanted.terms() if term.first in ("zyz", "zzyv", "@rare", "=fusion")
            ]
            statement = catalogue_page(wanted, sort=sort, after=None, by=by, limit=21)
            assert_indexed(plan(connection, statement), terms_key)
    for wanted in (*SELDOM, *COMMONLY[1:]):
        assert_indexed(plan(connection, term_counts(wanted.terms())), terms_key)


def both_ways_give_the_same_pages(connection: Connection) -> None:
    for wanted in (*SELDOM, *COMMONLY[1:]):
        for sort in SORTS:
            after = None
            for _ in range(2):
                pages = [
                    connection.execute(
                        catalogue_page(wanted, sort=sort, after=after, by=by, limit=9)
                    ).all()
                    for by in ((), wanted.terms(), *([term] for term in wanted.terms()))
                ]
                assert all(page == pages[0] for page in pages)
                if len(pages[0]) < 9:
                    break
                after = (pages[0][-1].position, pages[0][-1].id)


def counts_end_where_a_term_is_common(connection: Connection) -> None:
    wanted = CatalogueFilter(words=("zyz", "pizz", "nowhere"), city_key="rare", cuisine_key="thai")
    counts = connection.execute(term_counts(wanted.terms())).one()
    assert tuple(counts) == (10, RARE + 1, 0, 25, RARE + 1)
    # Many words hold these letters; none, or few, begin with them.
    wanted = CatalogueFilter(words=("u", "an", "zy", "f"))
    counts = connection.execute(term_counts(wanted.terms())).one()
    assert tuple(counts) == (0, 0, 10, 20)
    for terms, expected in (
        (CatalogueFilter(cuisine_key="fusion", city_key="rare").terms(), 5),
        (CatalogueFilter(words=("pizz", "kitch")).terms(), 0),
        (CatalogueFilter(words=("no",), city_key="rome").terms(), RARE + 1),
    ):
        statement = shared_count(terms)
        assert connection.execute(statement).scalar_one() == expected
        assert_indexed(plan(connection, statement))
