"""Small JSON bodies, read strictly: an object of declared members, each once, of one type each.

What is no JSON object at all raises MalformedInput; a member that is unknown or of another type
InvalidInput. The guard has bounded the bytes before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from api.answers import Headers
from shared.errors import FieldError, MalformedInput, invalid_body
from shared.parsing import MAX_SHOWN_CHARS

JSON_MEDIA_TYPE = b"application/json"

_NAMES = {bool: "true or false", int: "a whole number", str: "a text"}


def read_object(
    body: bytes, headers: Headers, *, members: Mapping[str, type[bool | int | str]]
) -> dict[str, Any]:
    """The members that are present; none where there is no body."""
    value = read_members(body, headers) if body else {}
    problems = [
        FieldError("body", name[:MAX_SHOWN_CHARS], _problem(members.get(name)))
        for name, member in value.items()
        if name not in members or type(member) is not members[name]
    ]
    if problems:
        raise invalid_body(problems)
    return value


def read_members(body: bytes, headers: Headers) -> dict[str, Any]:
    """All members, whatever they are. Raises MalformedInput, without a body, too."""
    if not body:
        raise MalformedInput("the body is missing")
    media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if media_type != JSON_MEDIA_TYPE:
        raise MalformedInput("the body must be application/json")
    return parse_object(body)


def parse_object(text: bytes, *, called: str = "the body") -> dict[str, Any]:
    """The members of a JSON object in UTF-8. Raises MalformedInput, about what it is `called`."""
    try:
        value = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        raise MalformedInput(f"{called} is not valid JSON") from None
    if not isinstance(value, dict):
        raise MalformedInput(f"{called} is not a JSON object")
    return value


def _problem(expected: type | None) -> str:
    return "is not a member of this body" if expected is None else f"is not {_NAMES[expected]}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is given twice")
    for name in members:
        name.encode()  # half a surrogate pair, which no answer could name, is no name
    return members


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("JSON knows neither NaN nor infinity")
