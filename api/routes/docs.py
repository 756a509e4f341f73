"""`/docs`, its style sheet, and the document itself at `/openapi.json`.

Nothing is loaded from elsewhere and nothing runs in the browser: the content security policy
allows this server's style sheet and no more. Each body is made at its first use and kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import orjson
from fastapi import APIRouter, Request, Response

from api.answers import Answer, HeaderField, as_response, header_map, length_of
from api.caching import is_match
from api.docs_page import STYLE_FILE, STYLE_PATH, render_page
from api.parameters import read_query

PAGE_PATH = "/docs"
DOCUMENT_PATH = "/openapi.json"
POLICY = (
    b"default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class _Kept:
    body: bytes
    fields: tuple[HeaderField, ...]


@router.get(PAGE_PATH, response_class=Response)
async def get_docs_page(request: Request) -> Response:
    def make() -> bytes:
        return render_page(request.app.openapi()).encode()

    return _serve(request, PAGE_PATH, b"text/html; charset=utf-8", make)


@router.get(STYLE_PATH, response_class=Response)
async def get_docs_style(request: Request) -> Response:
    return _serve(request, STYLE_PATH, b"text/css; charset=utf-8", STYLE_FILE.read_bytes)


@router.get(DOCUMENT_PATH, response_class=Response)
async def get_openapi_document(request: Request) -> Response:
    def make() -> bytes:
        return orjson.dumps(request.app.openapi())

    return _serve(request, DOCUMENT_PATH, b"application/json", make)


def _serve(request: Request, path: str, content_type: bytes, make: Callable[[], bytes]) -> Response:
    read_query(request.scope["query_string"], ())
    state = request.app.state
    if not hasattr(state, "docs"):
        state.docs = {}
    kept: dict[str, _Kept] = state.docs
    if path not in kept:
        kept[path] = _keep(make(), content_type)
    body, fields = kept[path].body, kept[path].fields
    etag = dict(fields)[b"etag"]
    if is_match(header_map(request.scope["headers"]).get(b"if-none-match"), etag):
        return as_response(Answer(304, list(fields[1:])))
    return as_response(Answer(200, [*fields, length_of(body)], body))


def _keep(body: bytes, content_type: bytes) -> _Kept:
    etag = b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()
    return _Kept(
        body,
        (
            (b"content-type", content_type),
            (b"etag", etag),
            (b"cache-control", b"public, no-cache"),
            (b"vary", b"Origin"),
            (b"content-security-policy", POLICY),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ),
    )
