"""Cursors: only what was sealed for a scope opens in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cursors import MAX_CURSOR_CHARS, CursorScope, cursor_key, open_cursor, seal_cursor
from shared.errors import MalformedInput
from shared.settings import load_settings

KEY = b"k" * 32
SCOPE = CursorScope("/api/jobs", "service", (("kind", "precompute"),))
POSITION = ["2026-11-25T10:58:12.345678+00:00", "0123456789abcdef0123456789abcdef"]

json_values = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=20))


def refuse(text: str, *, key: bytes = KEY, scope: CursorScope = SCOPE) -> None:
    with pytest.raises(MalformedInput):
        open_cursor(key, scope, text)


@given(st.lists(json_values, max_size=3), st.text(max_size=10), st.text(max_size=10))
def test_a_position_comes_back_as_it_was(position: list[Any], route: str, city: str) -> None:
    scope = CursorScope(route, "user:42", (("city", city),))

    assert open_cursor(KEY, scope, seal_cursor(KEY, scope, position)) == position


def test_no_changed_character_opens() -> None:
    cursor = seal_cursor(KEY, SCOPE, POSITION)
    for index, character in enumerate(cursor):
        for other in "Ab9_-=.% ":
            if other != character:
                refuse(cursor[:index] + other + cursor[index + 1 :])


def test_no_part_of_a_cursor_and_no_longer_one_opens() -> None:
    cursor = seal_cursor(KEY, SCOPE, POSITION)
    for length in range(len(cursor)):
        refuse(cursor[:length])
    for extra in ("A", "AAAA", "=", "\n", " "):
        refuse(cursor + extra)
        refuse(extra + cursor)


@pytest.mark.parametrize(
    "scope",
    [
        CursorScope("/api/orders", "service", SCOPE.filters),
        CursorScope("/api/jobs", "viewer", SCOPE.filters),
        CursorScope("/api/jobs", "service"),
        CursorScope("/api/jobs", "service", (("kind", "other"),)),
        CursorScope("/api/jobs", "service", (("kind", "precompute"), ("city", "x"))),
        CursorScope("/api/jobsservice", "", SCOPE.filters),
    ],
)
def test_a_cursor_is_good_for_its_scope_alone(scope: CursorScope) -> None:
    refuse(seal_cursor(KEY, SCOPE, POSITION), scope=scope)
    assert open_cursor(KEY, scope, seal_cursor(KEY, scope, POSITION)) == POSITION


def test_another_key_does_not_open() -> None:
    refuse(seal_cursor(KEY, SCOPE, POSITION), key=b"o" * 32)


@given(st.text(max_size=100))
def test_no_made_up_text_opens(text: str) -> None:
    refuse(text)


def test_an_oversized_text_is_refused() -> None:
    refuse("A" * (MAX_CURSOR_CHARS + 1))
    refuse("A" * 10_000_000)


def test_the_key_is_the_same_for_all_who_share_the_secret_and_is_not_the_secret(
    tmp_path: Path,
) -> None:
    def key(**variables: str) -> bytes:
        return cursor_key(load_settings({"TASTEMATCH_DATA_DIR": str(tmp_path), **variables}))

    one = key(TASTEMATCH_JWT_SECRET="x" * 40)

    assert one == key(TASTEMATCH_JWT_SECRET="x" * 40, TASTEMATCH_SERVICE_TOKEN="s" * 40)
    assert one != key(TASTEMATCH_JWT_SECRET="y" * 40)
    assert one != b"x" * 40
    public = {"TASTEMATCH_JWT_PUBLIC_KEY": "any"}
    assert key(TASTEMATCH_SERVICE_TOKEN="s" * 40, **public) != key(
        TASTEMATCH_SERVICE_TOKEN="t" * 40, **public
    )
