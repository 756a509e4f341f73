"""A query in its one form reads back as the same, whatever it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from api.filters import Circle, Filters, filters_of, query_of
from api.list_queries import PARAMETERS
from api.parameters import read_query

names = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=20
)
decimals = st.integers(0, 10**15 - 1).map(lambda n: f"{n:015d}")


@st.composite
def degrees(draw: st.DrawFn, limit: int) -> float:
    whole = draw(st.integers(-limit + 1, limit - 1))
    return float(f"{'-' if draw(st.booleans()) else ''}{abs(whole)}.{draw(decimals)}") + 0.0


filters = st.builds(
    Filters,
    st.lists(names, max_size=3, unique=True).map(lambda found: tuple(sorted(found))),
    st.lists(names, max_size=3, unique=True).map(lambda found: tuple(sorted(found))),
    st.lists(st.integers(1, 4), unique=True).map(lambda found: tuple(sorted(found))),
    st.none() | st.builds(Circle, degrees(90), degrees(180), st.floats(1, 100)),
)


@given(filters, st.frozensets(st.integers(0, 2**63 - 1), max_size=100))
def test_the_one_form_reads_back(found: Filters, excluded: frozenset[int]) -> None:
    query = query_of(found, excluded)
    values = read_query(query.encode("ascii"), PARAMETERS)
    assert filters_of(values) == found
    assert frozenset(values["exclude"]) == excluded
    assert query_of(filters_of(values), excluded) == query
