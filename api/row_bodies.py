"""Rows of restaurants and users as clients send them: members of a JSON object, read strictly.

What a value may be is what a data set file may hold (`shared.columns`), in the JSON type that fits
it. All that is wrong is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.columns import Column
from shared.errors import FieldError, invalid_body
from shared.parsing import MAX_SHOWN_CHARS, ParseError

_TYPES: Mapping[type, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
}
_NAMES: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def read_row(
    members: Mapping[str, Any], columns: Mapping[str, Column], *, is_part: bool = False
) -> dict[str, Any]:
    """The value of each column, in the order of `columns`; of `is_part` those that are given.

    A column that is absent or null is empty, as in a file. Raises InvalidInput.
    """
    problems = [
        FieldError("body", name[:MAX_SHOWN_CHARS], "is not a member of this body")
        for name in members
        if name not in columns
    ]
    values = {}
    for name, column in columns.items():
        if name not in members and is_part:
            continue
        try:
            if name not in members and column.is_required:
                raise ParseError("is missing")
            values[name] = column.parse(_text(members[name], column) if name in members else "")
        except ParseError as error:
            problems.append(FieldError("body", name, error.reason))
    if problems:
        raise invalid_body(problems)
    return values


def _text(value: Any, column: Column) -> str:
    """As it would stand in a file. Raises ParseError."""
    if value is None and not column.is_required and column.kind is not bool:
        return ""
    if type(value) not in _TYPES[column.kind]:
        raise ParseError(f"is not {_NAMES[column.kind]}")
    if column.kind is bool:
        return "true" if value else "false"
    return value if column.kind is str else repr(value)
