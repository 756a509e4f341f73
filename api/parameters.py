"""Query and path parameters: declared once, read strictly, documented from the same declaration.

A query holds only declared names, each once unless it may be repeated, in UTF-8 without NUL and
other control characters. Numbers are plain ASCII digits. All bad values are reported together, as
one InvalidInput.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from shared.errors import FieldError, InvalidInput, MalformedInput
from shared.parsing import MAX_ID, ParseError, parse_id, parse_text, shown

MAX_PAIRS = 64
MAX_DIGITS = 19
# No control characters, and something besides blanks.
_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f"
TEXT_PATTERN = rf"^[^{_CONTROLS}]*[^\s\x85{_CONTROLS}][^{_CONTROLS}]*$"
CURSOR = "cursor"  # opaque: one that no text can be is as malformed as any other


class Parameter(Protocol):
    """`read` takes the decoded text, None where the parameter is absent. Raises ParseError."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    def read(self, text: str | None) -> Any: ...
    def schema(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class IntegerParameter:
    name: str
    lowest: int
    highest: int
    default: int
    description: str

    def read(self, text: str | None) -> int:
        if text is None:
            return self.default
        if not (text.isascii() and text.isdigit()):
            raise ParseError(f"{shown(text)} is not a whole number in ASCII digits")
        if len(text) > MAX_DIGITS or not self.lowest <= int(text) <= self.highest:
            raise ParseError(f"is not between {self.lowest} and {self.highest}")
        return int(text)

    def schema(self) -> dict[str, Any]:
        return {
            "type": "integer",
            "minimum": self.lowest,
            "maximum": self.highest,
            "default": self.default,
        }


@dataclass(frozen=True, slots=True)
class ChoiceParameter:
    """The first choice is the default."""

    name: str
    choices: tuple[str, ...]
    description: str

    def read(self, text: str | None) -> str:
        if text is None:
            return self.choices[0]
        if text not in self.choices:
            raise ParseError(f"{shown(text)} is none of {', '.join(self.choices)}")
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.choices), "default": self.choices[0]}


@dataclass(frozen=True, slots=True)
class TextParameter:
    name: str
    max_chars: int
    description: str

    def read(self, text: str | None) -> str | None:
        if text is None:
            return None
        value = parse_text(text, max_chars=self.max_chars)
        if not value:
            raise ParseError("is empty")
        return value

    def schema(self) -> dict[str, Any]:
        return {
            "type": "string",
            "minLength": 1,
            "maxLength": self.max_chars,
            "pattern": TEXT_PATTERN,
        }


@dataclass(frozen=True, slots=True)
class NameParameter:
    """What the client got from here, or any other text, of any length; "" where it has none yet."""

    name: str
    description: str

    def read(self, text: str | None) -> str | None:
        return None if text is None else parse_text(text, max_chars=len(text))

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^[^{_CONTROLS}]*$"}


@dataclass(frozen=True, slots=True)
class IdsParameter:
    """Ids separated by commas: `1,2,3`. Absent is none at all."""

    name: str
    most: int
    description: str

    def read(self, text: str | None) -> tuple[int, ...]:
        if text is None:
            return ()
        pieces = text.split(",", self.most + 1)
        if len(pieces) > self.most:
            raise ParseError(f"holds more than {self.most} ids")
        return tuple(map(parse_id, pieces))

    def schema(self) -> dict[str, Any]:
        item = {"type": "integer", "format": "int64", "minimum": 0, "maximum": MAX_ID}
        return {"type": "array", "items": item, "minItems": 1, "maxItems": self.most}


@dataclass(frozen=True, slots=True)
class RepeatedParameter:
    """May be given up to `most` times; what it means is any of the values."""

    item: Parameter
    most: int

    @property
    def name(self) -> str:
        return self.item.name

    @property
    def description(self) -> str:
        return self.item.description

    def read_all(self, texts: Sequence[str]) -> tuple[Any, ...]:
        if len(texts) > self.most:
            raise ParseError(f"is given more than {self.most} times")
        return tuple(map(self.item.read, texts))

    def schema(self) -> dict[str, Any]:
        item = {name: value for name, value in self.item.schema().items() if name != "default"}
        return {"type": "array", "items": item, "maxItems": self.most}


AnyParameter = Parameter | RepeatedParameter


def read_query(raw: bytes, parameters: Sequence[AnyParameter]) -> dict[str, Any]:
    """The values by name, defaults filled in. Raises InvalidInput, MalformedInput."""
    problems: list[FieldError] = []
    texts = _texts(raw, parameters, problems)
    values: dict[str, Any] = {}
    for parameter in parameters:
        try:
            given = texts.get(parameter.name, [])
            if isinstance(parameter, RepeatedParameter):
                values[parameter.name] = parameter.read_all(given)
            else:
                values[parameter.name] = parameter.read(given[0] if given else None)
        except ParseError as error:
            problems.append(FieldError("query", parameter.name, error.reason))
    if problems:
        raise InvalidInput(_sentence(problems), tuple(problems))
    return values


def read_path_id(text: str, *, name: str) -> int:
    """An id from the path. Raises InvalidInput."""
    try:
        return parse_id(text)
    except ParseError as error:
        field = FieldError("path", name, error.reason)
        raise InvalidInput(_sentence([field]), (field,)) from None


def openapi_parameters(
    query: Sequence[AnyParameter] = (), *, path_ids: Sequence[str] = ()
) -> dict[str, Any]:
    """The OpenAPI extra of a route that reads these by itself."""
    described: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "format": "int64", "minimum": 0},
        }
        for name in path_ids
    ]
    described += [
        {
            "name": parameter.name,
            "in": "query",
            "required": False,
            "description": parameter.description,
            "schema": parameter.schema(),
            **({"style": "form", "explode": False} if isinstance(parameter, IdsParameter) else {}),
        }
        for parameter in query
    ]
    return {"parameters": described}


def _texts(
    raw: bytes, parameters: Sequence[AnyParameter], problems: list[FieldError]
) -> dict[str, list[str]]:
    may_repeat = {p.name: isinstance(p, RepeatedParameter) for p in parameters}
    texts: dict[str, list[str]] = {}
    pairs = [pair for pair in raw.split(b"&") if pair] if raw else []
    if len(pairs) > MAX_PAIRS:
        problems.append(FieldError("query", "", f"holds more than {MAX_PAIRS} parameters"))
        return texts
    for pair in pairs:
        raw_name, _, raw_value = pair.partition(b"=")
        name = _decoded(raw_name)
        text = _decoded(raw_value)
        if name is None or name not in may_repeat:
            label = "" if name is None else shown(name)[1:-1]
            problems.append(FieldError("query", label, "is not a parameter of this resource"))
        elif text is None and name == CURSOR:
            raise MalformedInput("the cursor cannot be read; begin again without it")
        elif text is None:
            problems.append(FieldError("query", name, "is not valid UTF-8"))
        elif name in texts and not may_repeat[name]:
            problems.append(FieldError("query", name, "is given more than once"))
        else:
            texts.setdefault(name, []).append(text)
    return texts


def _decoded(raw: bytes) -> str | None:
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _sentence(problems: Sequence[FieldError]) -> str:
    first = problems[0]
    return f"{first.location} parameter {first.name or '?'}: {first.detail}"
