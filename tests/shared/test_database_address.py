"""Addresses are read as SQLAlchemy reads them, which is not loaded for it."""

from __future__ import annotations

import random

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from shared.database_address import parse_database_address

PIECES = (
    *("postgres", "postgresql", "sqlite", "://", ":///", "/", "@", ":", "?", "&", "=", "#"),
    *("user", "p%40ss", "%2F", "%", "db", "[::1]", "10.0.0.1", "5432", "99999", "shop", " "),
    *("sslmode=require", "sslmode", "application_name=a%20b", "é", "+", ".", "tmp/x.db"),
)
WHOLE = (
    "postgres://u:p@db:5432/shop",
    "postgresql://u:p%40%2F%23@db/shop?sslmode=require&application_name=a%20b",
    "postgresql://u@[::1]:5433/shop",
    "postgresql:///shop",
    "sqlite:///relative/shop.db",
    "sqlite:////absolute/%41 shop.db?x=1",
)


@pytest.mark.parametrize("seed", range(3))
def test_both_read_the_same(seed: int) -> None:
    rng = random.Random(seed)
    made = ["".join(rng.choices(PIECES, k=rng.randint(2, 9))) for _ in range(2_000)]
    read = 0
    for text in (*WHOLE, *made):
        try:
            url = make_url(text)
            expected = (
                *(url.drivername, url.username, url.password, url.host, url.port),
                *(url.database, dict(url.query)),
            )
        except (ArgumentError, ValueError):
            expected = None
        try:
            own = parse_database_address(text)
        except ValueError:
            # A parameter given twice means nothing to any driver.
            assert expected is None or any(isinstance(v, tuple) for v in url.query.values()), text
            continue
        assert expected is not None, text
        read += 1
        assert (
            *(own.scheme, own.user, own.password, own.host, own.port),
            *(own.database, own.query),
        ) == expected, text
    assert read > len(WHOLE)
    assert "p@" not in repr(parse_database_address(WHOLE[1]))
