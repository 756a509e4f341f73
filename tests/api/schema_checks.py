"""What Schemathesis checks of every answer beside its own rules; it loads this by name."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import schemathesis
from schemathesis import Case, CheckContext, Response, SerializationContext

LINES = "application/x-ndjson"
CACHED = ("public, ", "private, no-cache", "no-store")


@schemathesis.serializer(LINES)
def as_lines(_context: SerializationContext, value: Any) -> bytes:
    """A text as it is; anything else as one line."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


@schemathesis.check
def every_answer_is_well_formed(_context: CheckContext, response: Response, _case: Case) -> None:
    fields = {name.lower(): values[0] for name, values in response.headers.items()}
    assert {"x-request-id", "x-process-time", "server-timing", "cache-control"} <= set(fields)
    assert fields["cache-control"].startswith(CACHED), fields["cache-control"]
    if response.status_code in (204, 304):
        assert not response.content
        assert "content-length" not in fields
        return
    if "content-encoding" not in fields:
        assert int(fields["content-length"]) == len(response.content)
    if fields["content-type"] == LINES:
        for line in response.content.splitlines():
            assert {"line", "id", "outcome"} <= set(_strict(line))
    elif response.status_code < 400:
        _strict(response.content)
    elif fields["content-type"] == "application/problem+json":
        problem = _strict(response.content)
        assert problem["status"] == response.status_code
        assert problem["request_id"] == fields["x-request-id"]
        assert fields["cache-control"] == "no-store"
        if response.status_code == 422:
            assert problem["errors"], "a bad value is named"


def _strict(content: bytes) -> Any:
    return json.loads(content.decode("utf-8"), parse_constant=_refuse)


def _refuse(name: str) -> NoReturn:
    raise AssertionError(f"{name} is no JSON")
