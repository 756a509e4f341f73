"""Errors as `application/problem+json` (RFC 9457), and the only place that knows their status.

An error class is looked up along its MRO. What a client sees is the message of a deliberate
error, which is written to be shown, or for any other error a sentence that says nothing but where
to look: the request id, which stands in the log beside the error's type and place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson

from api.answers import Answer, HeaderField, length_of
from shared import errors
from shared.errors import FieldError, InvalidInput, TasteMatchError

RETRY_DEPENDENCY_SECONDS = 5
RETRY_SNAPSHOT_SECONDS = 5
RETRY_OVERLOAD_SECONDS = 1
RETRY_OUTDATED_SECONDS = 300
MAX_FIELD_ERRORS = 20

_TYPE = (b"content-type", b"application/problem+json")
_NO_STORE = (b"cache-control", b"no-store")
_VARY = (b"vary", b"Authorization, Origin, Accept-Encoding")


@dataclass(frozen=True, slots=True)
class Problem:
    """`code` is what programs compare; `title` is the same for every occurrence."""

    status: int
    code: str
    title: str
    retry_seconds: int | None = None


INTERNAL = Problem(500, "internal", "Internal error")
BAD_REQUEST = Problem(400, "malformed-request", "The request cannot be read")
NOT_FOUND = Problem(404, "not-found", "There is nothing here")
METHOD_NOT_ALLOWED = Problem(405, "method-not-allowed", "This resource has no such method")
REQUEST_TIMEOUT = Problem(408, "request-timeout", "The request did not arrive in time")
BODY_TOO_LARGE = Problem(413, "body-too-large", "The body is too large")
UNSUPPORTED_MEDIA = Problem(
    415, "unsupported-media-type", "A body of this media type is not read here"
)
URL_TOO_LONG = Problem(414, "url-too-long", "The address is too long")
HEADERS_TOO_LARGE = Problem(431, "headers-too-large", "The header fields are too large")
ORIGIN_REFUSED = Problem(403, "origin-refused", "This origin may not call the API")
OVERLOADED = Problem(
    503, "overloaded", "Too many requests are being worked on", RETRY_OVERLOAD_SECONDS
)

PROBLEMS: dict[type[TasteMatchError], Problem] = {
    TasteMatchError: INTERNAL,
    errors.DependencyError: Problem(
        503,
        "dependency-unavailable",
        "A service behind the API does not answer",
        RETRY_DEPENDENCY_SECONDS,
    ),
    errors.DatabaseUnavailable: Problem(
        503, "database-unavailable", "The database does not answer", RETRY_DEPENDENCY_SECONDS
    ),
    errors.StoreUnavailable: Problem(
        503, "store-unavailable", "The snapshot store does not answer", RETRY_DEPENDENCY_SECONDS
    ),
    errors.QueueUnavailable: Problem(
        503, "queue-unavailable", "The job queue does not answer", RETRY_DEPENDENCY_SECONDS
    ),
    errors.SchemaError: Problem(
        503, "database-schema", "The database is not migrated", RETRY_DEPENDENCY_SECONDS
    ),
    errors.SnapshotUnavailable: Problem(
        503, "snapshot-unavailable", "No snapshot has been published yet", RETRY_SNAPSHOT_SECONDS
    ),
    errors.SnapshotNotFound: Problem(404, "snapshot-not-found", "There is no such snapshot"),
    errors.SnapshotDamaged: Problem(409, "snapshot-damaged", "The snapshot is damaged"),
    errors.SnapshotUnsupported: Problem(
        409, "snapshot-unsupported", "The snapshot is of another release"
    ),
    errors.SnapshotOutdated: Problem(
        503, "snapshot-outdated", "The snapshot is of an older release", RETRY_OUTDATED_SECONDS
    ),
    errors.StoreFull: Problem(
        503, "store-full", "The snapshot store is full", RETRY_DEPENDENCY_SECONDS
    ),
    errors.PublishSuperseded: Problem(409, "superseded", "A later change came first"),
    errors.JobNotFound: Problem(404, "job-not-found", "There is no such job"),
    errors.JobError: Problem(409, "job-conflict", "The job is not in a state for this"),
    errors.RequestError: BAD_REQUEST,
    errors.Unauthenticated: Problem(401, "unauthenticated", "A valid bearer token is needed"),
    errors.Forbidden: Problem(403, "forbidden", "The token does not allow this"),
    errors.NotFound: NOT_FOUND,
    errors.VersionGone: Problem(410, "version-gone", "The snapshot of this page is gone"),
    errors.NotAcceptable: Problem(406, "not-acceptable", "No form of the answer is acceptable"),
    errors.UnsupportedMedia: UNSUPPORTED_MEDIA,
    errors.BodyTooLarge: BODY_TOO_LARGE,
    errors.RequestTimeout: REQUEST_TIMEOUT,
    errors.InvalidInput: Problem(422, "invalid-input", "A value is not valid"),
    errors.MalformedInput: Problem(400, "malformed-input", "The input cannot be read"),
}

_UNEXPECTED = "something unexpected happened; the log names it under this request id"


def problem_of(error: type[TasteMatchError]) -> Problem:
    """The entry of the nearest class along the MRO; every deliberate error has one."""
    return next(PROBLEMS[cls] for cls in error.__mro__ if cls in PROBLEMS)


def error_answer(error: BaseException, *, request_id: str) -> Answer:
    """The answer to an error that a handler or route let through."""
    if not isinstance(error, TasteMatchError):
        return problem_answer(INTERNAL, _UNEXPECTED, request_id=request_id)
    problem = problem_of(type(error))
    if problem is INTERNAL:
        return problem_answer(INTERNAL, _UNEXPECTED, request_id=request_id)
    fields = error.fields if isinstance(error, InvalidInput) else ()
    headers: list[HeaderField] = []
    if isinstance(error, errors.Unauthenticated):
        headers.append((b"www-authenticate", b'Bearer realm="tastematch"'))
    return problem_answer(
        problem, error.message, request_id=request_id, fields=fields, headers=headers
    )


def problem_answer(
    problem: Problem,
    detail: str,
    *,
    request_id: str,
    fields: Sequence[FieldError] = (),
    headers: Sequence[HeaderField] = (),
) -> Answer:
    """`detail` explains this occurrence; `fields` name each bad value and are cut at 20."""
    document: dict[str, Any] = {
        "type": f"urn:tastematch:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "code": problem.code,
        "request_id": request_id,
    }
    if fields:
        document["errors"] = [
            {"in": field.location, "name": field.name, "detail": field.detail}
            for field in fields[:MAX_FIELD_ERRORS]
        ]
    body = orjson.dumps(document)
    answer = [_TYPE, length_of(body), _NO_STORE, _VARY, *headers]
    if problem.retry_seconds is not None:
        answer.append((b"retry-after", b"%d" % problem.retry_seconds))
    return Answer(problem.status, answer, body)


def problem_for_status(status: int) -> Problem:
    """A problem for a status that the framework raised by itself."""
    for known in (BAD_REQUEST, NOT_FOUND, METHOD_NOT_ALLOWED, BODY_TOO_LARGE):
        if known.status == status:
            return known
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        return INTERNAL
    return Problem(status, phrase.lower().replace(" ", "-"), phrase)
